"""Mistakes that people make when they record a run's metrics."""

from __future__ import annotations

from touchstone import Mutant

RECORDER, READER = "training.MetricsRecorder", "training.read_metrics"
_ADD = "        self._nats += float(loss) * tokens\n        self._tokens += tokens\n"
_RESET = "self._since, self._paused = now, 0.0"
_OPEN = "self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)"
_WRITE = "            written = os.write(self._descriptor, line)\n"


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


MUTANTS = [
    *_of(
        RECORDER,
        (
            "mean_of_micro_batches",
            "averages the micro-batches' losses without regard to their tokens",
            _ADD,
            "        losses = [*getattr(self, '_losses', []), float(loss)] if self._tokens else [float(loss)]\n"
            "        self._losses, self._tokens = losses, self._tokens + tokens\n"
            "        self._nats = sum(losses) / len(losses) * self._tokens\n",
        ),
        (
            "last_micro_batch",
            "records the loss of the last micro-batch only",
            _ADD,
            "        self._tokens += tokens\n        self._nats = float(loss) * self._tokens\n",
        ),
        (
            "single_precision",
            "adds up in half a float's digits",
            "self._nats += float(loss) * tokens",
            "self._nats = round(self._nats + float(loss) * tokens, 3)",
        ),
        ("perplexity_of_bits", "takes a power of two of a loss in nats", "math.exp(loss)", "2.0**loss"),
        (
            "last_tokens_only",
            "counts the last micro-batch's tokens only",
            "self._tokens += tokens",
            "self._tokens = tokens",
        ),
        ("evaluation_counted", "counts validation as training time", "self._since - self._paused", "self._since"),
        ("pause_never_forgotten", "takes an old validation off every later update", _RESET, "self._since = now"),
        (
            "pause_lost_on_error",
            "forgets the time of a validation that failed",
            "        try:\n            yield\n        finally:\n            self._paused",
            "        yield\n        if True:\n            self._paused",
        ),
        (
            "only_the_last_pause",
            "forgets all but the last pause",
            "self._paused += self._clock()",
            "self._paused = self._clock()",
        ),
        ("since_the_start", "divides by the time since the run began", _RESET, "self._paused = 0.0"),
        ("own_clock", "ignores the clock it is given", "self._clock = clock", "self._clock = time.perf_counter"),
        (
            "tokens_of_the_update",
            "gives the update's tokens for those seen so far",
            "self.total_tokens += self._tokens",
            "self.total_tokens = self._tokens",
        ),
        (
            "sums_not_cleared",
            "goes on adding to the last update's sums",
            "        self._nats, self._tokens = 0.0, 0\n        self._since, self._paused = now",
            "        self._since, self._paused = now",
        ),
        (
            "buffered",
            "keeps records in memory and writes eight at a time",
            _WRITE,
            "            self._late = getattr(self, '_late', b'') + line\n"
            "            written = len(line)\n"
            "            if self.last_step % 8 == 0:\n"
            "                os.write(self._descriptor, self._late)\n"
            "                self._late = b''\n",
        ),
        (
            "rewritten_whole",
            "writes the whole file anew each time: a kill half-way loses everything",
            _WRITE,
            "            every = self.path.read_bytes() + line\n"
            "            os.truncate(self.path, 0)\n"
            "            written = os.write(self._descriptor, every)\n",
        ),
        (
            "nan_as_a_word",
            "writes NaN, which is not JSON",
            "json.dumps(_plain(record), allow_nan=False)",
            "json.dumps(record)",
        ),
        (
            "nan_without_a_flag",
            "stores null without saying what it was",
            ' | {"non_finite": strange}\n',
            "\n",
        ),
        ("infinity_is_nan", "flags every value as nan", "strange = {name: str(value)", 'strange = {name: "nan"'),
        (
            "overflow_raised",
            "fails where a perplexity is too large for a float",
            "    except OverflowError:\n        return math.inf",
            "    except ZeroDivisionError:\n        return math.inf",
        ),
        ("same_step_twice", "takes the same step again", "if step <= self.last_step:", "if step < self.last_step:"),
        ("any_step", "takes steps in any order", "if step <= self.last_step:", "if step <= 0:"),
        (
            "last_step_forgotten",
            "compares with the first step only",
            "        self.last_step = step\n",
            "        self.last_step = self.last_step or step\n",
        ),
        ("no_tokens", "divides by no tokens", "        if tokens < 1:\n", "        if tokens < 0:\n"),
        (
            "run_ended_by_a_full_disk",
            "lets a full disk end the run",
            "        except OSError as error:\n",
            "        except FileNotFoundError as error:\n",
        ),
        (
            "warns_every_time",
            "goes on trying, and warns at every record",
            "stacklevel=3)\n            self.close()",
            "stacklevel=3)",
        ),
        (
            "silent",
            "stops recording without a word",
            "warnings.warn(f",
            "(lambda *said, stacklevel: None)(f",
        ),
        (
            "memory_now",
            "gives the memory of this moment, not the peak",
            '"peak_memory": peak_memory(),',
            '"peak_memory": int(open("/proc/self/statm").read().split()[1]) * 4096,',
        ),
        ("kilobytes", "gives kilobytes for bytes", 'if sys.platform == "darwin" else peak * 1024', ""),
        (
            "overwrites_a_run",
            "begins anew over a run that is there",
            _OPEN,
            "self._descriptor = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o644)",
        ),
        (
            "mixes_two_runs",
            "appends a new run to an old one",
            "        if path.is_file() and path.stat().st_size:\n",
            "        if False:\n",
        ),
        (
            "nothing_cut",
            "leaves the records that are made again: duplicates",
            "    if keep < len(data):\n",
            "    if False:\n",
        ),
        (
            "torn_line_kept",
            "cuts whole records only: the torn line runs into the next record",
            "    if keep < len(data):\n",
            '    if keep <= data.rfind(b"\\n"):\n',
        ),
        (
            "one_too_many_cut",
            "cuts the record of the step it resumes from",
            'record["step"] > resume_from',
            'record["step"] >= resume_from',
        ),
        ("gap_taken", "resumes after a gap", "    if step != resume_from:\n", "    if False:\n"),
        (
            "tokens_from_zero",
            "counts tokens from zero after resuming",
            "    return step, tokens\n",
            "    return step, 0\n",
        ),
        ("steps_from_zero", "lets a resumed run go backwards", "    return step, tokens\n", "    return 0, tokens\n"),
        (
            "folder_missing",
            "fails where the folder does not exist",
            "self.path.parent.mkdir(parents=True, exist_ok=True)",
            "pass",
        ),
    ),
    *_of(
        READER,
        (
            "torn_line_raises",
            "cannot read a file whose last line was torn",
            "data[:whole].splitlines()",
            "data.splitlines()",
        ),
        ("torn_unsaid", "does not say that a line was torn", ", whole < len(data)", ", False"),
        ("always_torn", "says torn of every file", ", whole < len(data)", ", True"),
        (
            "bad_lines_left_out",
            "leaves out a broken line in the middle without a word",
            "[_record(line, path, n) for n, line in enumerate(data[:whole].splitlines(), 1)]",
            '[_record(line, path, n) for n, line in enumerate(data[:whole].splitlines(), 1) if b"tokens" in line]',
        ),
        (
            "null_left",
            "leaves null where a value was not finite",
            'for name, value in record.pop("non_finite", {}).items()',
            "for name, value in {}.items()",
        ),
        ("line_from_zero", "counts lines from 0", "data[:whole].splitlines(), 1)]", "data[:whole].splitlines())]"),
    ),
]
