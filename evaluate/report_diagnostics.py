"""The section of `report.md` on how the model reads: what is recovered of a chunk, and where an answer looks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.attention_focus import summarise_attention
from evaluate.plots import plot_attention_by_layer, plot_attention_heads, plot_recovery
from evaluate.recovery import summarise_recovery
from evaluate.tables import markdown_table, one_line


def summarise_diagnostics(chunks: Sequence[Mapping], answers: Mapping[str, Sequence[Mapping] | str]) -> dict | None:
    """Turn what `pefts.diagnostics` measured into figures for `metrics.json`.

    Args:
        chunks: restated chunks, see `summarise_recovery`; empty where that was not asked for.
        answers: task -> its answers, see `summarise_attention`, or why there are none.

    Returns:
        `{"recovery": figures or None, "attention": {task: figures, or {"n": 0, "reason"}}}`; None without any.
    """
    if not chunks and not answers:
        return None
    attention = {
        task: {"n": 0, "reason": found} if isinstance(found, str) else summarise_attention(found)
        for task, found in answers.items()
    }
    return {"recovery": summarise_recovery(chunks) if chunks else None, "attention": attention}


def diagnostics_section(output_dir: Path, diagnostics: Mapping | None) -> str:
    """The figures of `summarise_diagnostics` with their plots, which are drawn into `plots/`."""
    if not diagnostics:
        return ""
    parts = [_recovery_part(output_dir, diagnostics["recovery"])] if diagnostics["recovery"] else []
    for number, (task, figures) in enumerate(diagnostics["attention"].items(), start=1):
        parts.append(_attention_part(output_dir, number, task, figures))
    return "## Diagnostics\n\n" + "\n".join(parts) if parts else ""


def _recovery_part(output_dir: Path, figures: Mapping) -> str:
    rows = [
        [
            row["kind"],
            row["n"],
            *(f"{100 * row[key]:.1f}" for key in ("accuracy", "accuracy_shuffled")),
            *(f"{row[key]:.3f}" for key in ("loss", "loss_shuffled")),
        ]
        for row in figures["by_kind"]
    ]
    header = ["tokens of", "n", "right (%)", "right, shuffled (%)", "loss", "loss, shuffled"]
    plot = "plots/recovery.png"
    plot_recovery(output_dir / plot, figures["by_position"])
    return (
        f"### What is recovered of a chunk\n\n{markdown_table(header, rows, right=range(1, 6))}\nTokens of"
        f" {figures['num_chunks']:,} held-out chunks, each restated from its own chunk token and the text before;"
        " *shuffled* is the same under the chunk token of another chunk. Losses in nats a token.\n\n"
        f"![recovery of names, numbers and other words by position in the chunk]({plot})\n"
    )


def _attention_part(output_dir: Path, number: int, task: str, figures: Mapping) -> str:
    title = f"### {one_line(task)}: where an answer looks\n\n"
    if not figures["n"]:
        return title + f"Not measured: {figures['reason']}.\n"
    by_layer = figures["by_layer"]
    rows = [
        [row["layer"], *(f"{100 * row[key]:.1f}" for key in ("evidence_mass", "other_mass", "looks"))]
        for row in by_layer
    ]
    header = ["layer", "attention to the evidence (%)", "to other chunks (%)", "looks at the evidence (%)"]
    best = figures["best_head"]
    plots = [f"plots/attention_{number:02d}_{kind}.png" for kind in ("layers", "heads")]
    plot_attention_by_layer(output_dir / plots[0], by_layer, figures["chance"], f"{task}: attention of the answer")
    plot_attention_heads(output_dir / plots[1], figures["heads"], f"{task}: answers that look at their evidence (%)")
    return (
        f"{title}{markdown_table(header, rows, right=range(4))}\nMeans over {figures['n']:,} answers and all heads, the"
        " right answer given token by token. An answer looks at its evidence where, of all chunks, one that holds it"
        f" gets the most attention; a random chunk would in {100 * figures['chance']:.1f} %.\n\n"
        f"The head that looks most often: layer {best['layer']}, head {best['head']}, {100 * best['looks']:.1f} %"
        " (chosen on these answers).\n\n"
        + _best_head_tables(best)
        + f"\n![attention to the evidence by layer]({plots[0]})\n\n![heads that look at the evidence]({plots[1]})\n"
    )


def _best_head_tables(best: Mapping[str, Sequence[Mapping]]) -> str:
    by_chunks = [
        [row["chunks"], row["n"], f"{100 * row['looks']:.1f}", f"{100 * row['chance']:.1f}"]
        for row in best["by_chunks"]
    ]
    by_answer = [
        ["right" if row["right"] else "wrong", row["n"], f"{100 * row['looks']:.1f}"] for row in best["by_answer"]
    ]
    return (
        markdown_table(["chunks", "n", "that head looks (%)", "chance (%)"], by_chunks, right=range(4))
        + "\n"
        + markdown_table(["answer", "n", "that head looks (%)"], by_answer, right=(1, 2))
    )
