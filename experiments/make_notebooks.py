"""Executes the notebooks' sources and writes the .ipynb files beside them.

    python experiments/make_notebooks.py [NAME.py ...] [--model MODEL]

Needs the extras `notebooks`, `search`, `evaluate`, `torch`. Each notebook runs from top to bottom
in a copy of the folder, without the cell that installs; what it prints and draws is kept, nothing
that differs from one run to the next beside it (times, identifiers).
"""

import argparse
import re
import shutil
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
SECONDS = 1200  # a cell
MOVING = re.compile(r".*\r(?!\n)")  # lines of progress that were written over


def main() -> None:
    """Every notebook, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=Path)
    parser.add_argument("--model", help="in place of the notebooks' own")
    options = parser.parse_args()
    import jupytext

    for source in options.names or sorted(NOTEBOOKS.glob("*.py")):
        start = time.monotonic()
        notebook = executed(source, options.model)
        target = source.with_suffix(".ipynb")
        jupytext.write(notebook, target)
        size = target.stat().st_size / 1024
        print(f"{target.name}: {time.monotonic() - start:.0f} s, {size:.0f} KB", flush=True)


def executed(source: Path, model: str | None = None):
    """The notebook of a source with its outputs; raises CellExecutionError where a cell fails."""
    import jupytext
    import nbclient

    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # else a new one each time
        if model:
            cell.source = re.sub(r'^MODEL = ".*?"', f"MODEL = {model!r}", cell.source)
    installing = [cell for cell in notebook.cells if "install" in cell.metadata.get("tags", ())]
    kept = {id(cell): cell.source for cell in installing}
    for cell in installing:
        cell.source = ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        shutil.copytree(ROOT / "configs", Path(scratch) / "configs")
        client = nbclient.NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3",
            resources={"metadata": {"path": str(folder)}}, record_timing=False,
        )  # fmt: skip
        client.execute()
    for cell in installing:
        cell.source = kept[id(cell)]
    for cell in notebook.cells:
        outputs = [_tidy(o, scratch) for o in cell.get("outputs", [])]
        cell["outputs"] = [o for o in outputs if "TqdmWarning" not in o.get("text", "")]
        if cell.cell_type != "code":
            del cell["outputs"]
    return notebook


def _tidy(output, scratch: str):
    """Without progress that was written over, and without the names of this machine's folders."""

    def clean(text: str) -> str:
        return MOVING.sub("", text).replace(scratch, "..").replace(str(ROOT.resolve()), "m3jax")

    if "text" in output:
        output["text"] = clean(output["text"])
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/"):
            output["data"][kind] = clean(value)
    return output


if __name__ == "__main__":
    main()
