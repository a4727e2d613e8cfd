"""Why a passage matches a query.

`alignment` computes the shared tokens and the best match of each query token, `plot` draws them
(matplotlib), `html` writes them as a page.
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.explain.alignment import Explanation, explain_passages
    from m3jax.explain.html import explanation_page
    from m3jax.explain.plot import plot_explanation

__all__ = ["Explanation", "explain_passages", "explanation_page", "plot_explanation"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "alignment": ("Explanation", "explain_passages"),
        "html": ("explanation_page",),
        "plot": ("plot_explanation",),
    },
)
