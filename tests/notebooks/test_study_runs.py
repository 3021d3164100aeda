"""The study that notebook 11 writes is one: it runs without root, and the notebook reads its result."""

import re

from ringtape.analysis.notebook_pages import chosen, made_for, run, words_of


def test_the_small_study_of_the_notebook_runs_and_is_judged(tmp_path):
    said = words_of(run(made_for(chosen("11"), {"RUN": True}), tmp_path))
    found = re.search(
        r"An empty wrapper makes the start ([\d.]+) times as long \[([\d.]+), ([\d.]+)\]; the claim `slowdown\(wrapper\) < 2`: \*\*(.*?)\*\*", said
    )
    assert found, said
    ratio, low, high = (float(text) for text in found.groups()[:3])
    assert low < ratio < high
    assert found[4] in ("holds", "undecided", "does not hold")
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
