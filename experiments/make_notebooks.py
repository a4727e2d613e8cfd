"""Executes the notebooks' sources and writes the .ipynb files beside them.

    python experiments/make_notebooks.py [NAME.py ...] [--model MODEL]

Needs the extras `notebooks`, `search`, `evaluate`, `torch`. Each notebook is executed in a copy of
its directory, without the cell that installs packages. Its outputs are stored, but no execution
times or random identifiers.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
SECONDS = 1200  # timeout of a cell
OVERWRITTEN = re.compile(r".*\r(?!\n)")  # lines of progress bars


def main() -> None:
    """Executes and writes every notebook, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=Path)
    parser.add_argument("--model", help="replaces MODEL in the notebooks")
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
    """The notebook of a source with its outputs. Raises CellExecutionError if a cell fails."""
    import jupytext
    import nbclient

    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the default is random
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
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
        )
        scripts = str(Path(sys.executable).parent)  # of `m3jax` in cells that start with "!"
        client.execute(env={**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])})
    for cell in installing:
        cell.source = kept[id(cell)]
    for cell in notebook.cells:
        outputs = [_tidy(o, scratch) for o in cell.get("outputs", [])]
        cell["outputs"] = [o for o in outputs if "TqdmWarning" not in o.get("text", "")]
        if cell.cell_type != "code":
            del cell["outputs"]
    return notebook


def _tidy(output, scratch: str):
    """An output without progress bars and absolute paths."""

    def clean(text: str) -> str:
        return (
            OVERWRITTEN.sub("", text).replace(scratch, "..").replace(str(ROOT.resolve()), "m3jax")
        )

    if "text" in output:
        output["text"] = clean(output["text"])
    for mime_type, value in output.get("data", {}).items():
        if mime_type.startswith("text/"):
            output["data"][mime_type] = clean(value)
    return output


if __name__ == "__main__":
    main()
