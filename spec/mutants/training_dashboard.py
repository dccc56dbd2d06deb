"""Mistakes that people make in a live page of metrics, in what is served and in the page's own script."""

from __future__ import annotations

from touchstone import Mutant

_PAGE = '"dashboard.html").read_text(encoding="utf-8")'


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the dashboard."""
    return [Mutant(name, "training.metrics_dashboard", old, new, says) for name, says, old, new in patches]


def _script(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """The same for the page's script, which is changed as it is read."""
    return _of(*((name, says, _PAGE, f"{_PAGE}.replace({old!r}, {new!r})") for name, says, old, new in patches))


MUTANTS = [
    *_of(
        (
            "every_nth",
            "thins by taking every n-th record",
            "    edges = np.linspace",
            "    return np.arange(0, n, n // points)\n    edges = np.linspace",
        ),
        ("maxima_only", "keeps each bucket's maximum only", "for sign in (1, -1):", "for sign in (-1,):"),
        (
            "bucket_means",
            "shows means of buckets",
            "values[kept].tolist()]",
            "np.convolve(values, np.ones(3) / 3, 'same')[kept].tolist()]",
        ),
        ("not_thinned", "sends every record", "    if n <= points:\n", "    if n <= points * 10**6:\n"),
        (
            "gap_bridged",
            "leaves out what is not finite: the line runs across the gap",
            "finite = [value if np.isfinite(value) else None",
            "kept = kept[np.isfinite(values[kept])]\n            finite = [value",
        ),
        (
            "tokens_for_steps",
            "gives tokens for steps",
            "zip(steps[kept].tolist(), tokens",
            "zip(tokens[kept].tolist(), tokens",
        ),
        (
            "read_once",
            "never looks again",
            "                run.refresh()\n",
            "                run.offset or run.refresh()\n",
        ),
        (
            "appended_to_the_old",
            "goes on after records that were cut off",
            "            if file.read(len(self.tail)) != self.tail:\n",
            "            if len(file.read(len(self.tail))) < 0:\n",
        ),
        ("torn_unsaid", "does not say that a last line was torn", "self.torn = bool(rest)", "self.torn = False"),
        ("broken_unsaid", "leaves broken lines out without a word", "self.broken.append(number)", "pass"),
        ("gap_unsaid", "does not say that there is a gap", "        if gaps:\n", "        if gaps > 10**9:\n"),
        (
            "empty_unsaid",
            "does not say that a run is empty",
            "        if not len(steps):\n",
            "        if len(steps) < 0:\n",
        ),
        (
            "any_host",
            "answers whatever name it is called by",
            ' not in {f"127.0.0.1:{here}", f"localhost:{here}"}',
            " is None",
        ),
        ("every_interface", "serves every interface of the machine", '("127.0.0.1", port)', '("", port)'),
        ("no_policy", "lets the page ask anybody", "connect-src 'self'", "connect-src *"),
    ),
    *_script(
        (
            "names_as_markup",
            "puts names into the page as markup",
            "label.append(box, key, run.name);",
            "label.append(box, key); label.insertAdjacentHTML('beforeend', run.name);",
        ),
        (
            "log_ignored",
            "changes the marks, not the lines, on a logarithmic scale",
            "up(value) - up(ys[0])) /",
            "value - ys[0]) / (ys[1] - ys[0]) * (up(ys[1]) - up(ys[0])) /",
        ),
        (
            "upside_down",
            "draws large values low",
            "py = (value) => HEIGHT - BOTTOM\n        -",
            "py = (value) => TOP\n        +",
        ),
        ("always_steps", "draws against steps whatever is chosen", "x === 'step' ? step : tokens,", "step,"),
        (
            "csv_of_everything",
            "saves hidden runs too",
            "for (const line of lines) {\n      for",
            "for (const line of runs.map((run) => ({ run, points: points(run, chart, x, log) }))) {\n      for",
        ),
        ("csv_unquoted", "writes names with commas as they are", "quote(run)", "run"),
        ("slow", "asks every five seconds", "POLL = 1000", "POLL = 5000"),
        ("busy", "asks without a pause", "POLL = 1000", "POLL = 50"),
        (
            "two_digits",
            "rounds values to two digits",
            "JSON.stringify(line.points.map((p) => [p.at, p.value]))",
            "JSON.stringify(line.points.map((p) => [p.at, p.value && +p.value.toFixed(2)]))",
        ),
        (
            "last_run_only",
            "draws the last run only",
            "main.textContent = '';",
            "main.textContent = ''; runs = runs.slice(-1);",
        ),
    ),
]
