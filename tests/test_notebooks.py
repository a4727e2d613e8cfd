"""The notebooks are short, in order, and run from top to bottom on the bundled model."""

import ast
import sys
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="pip install 'm3jax[notebooks]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import make_notebooks  # noqa: E402

SOURCES = sorted(make_notebooks.NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_cells_are_short_and_in_order(source):
    """A badge, then what installs, then what picks model and size; hardly a function."""
    cells = jupytext.read(source).cells
    assert f"notebooks/{source.stem}.ipynb" in cells[0].source and "colab" in cells[0].source
    code = [c for c in cells if c.cell_type == "code"]
    assert "install" in code[0].metadata["tags"] and "%pip install" in code[0].source
    assert 'MODEL = "m3-mini"' in code[1].source
    for cell in code[1:]:
        lines = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
        text = "\n".join(lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 5


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_what_is_shown_was_made_from_the_source(source):
    """Else: python experiments/make_notebooks.py."""
    cells = jupytext.read(source).cells
    shown = jupytext.read(source.with_suffix(".ipynb")).cells
    assert [c.source for c in shown] == [c.source for c in cells]
    code = [c for c in shown if c.cell_type == "code"]
    pictures = [any("image/png" in out.get("data", {}) for out in c.outputs) for c in code]
    assert any(c.outputs for c in code)
    assert all(there or "plt.show" not in c.source for c, there in zip(code, pictures, strict=True))
    assert not any(out.output_type == "error" for c in code for out in c.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(source):
    pytest.importorskip("nbclient", reason="pip install 'm3jax[notebooks]'")
    make_notebooks.executed(source)
