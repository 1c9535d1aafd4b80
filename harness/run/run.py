"""A run is a folder that records one training, and from which a killed training resumes.

    runs/<task>/<name>/config.yaml      the resolved configuration
                       metrics.jsonl    one line a call of `Run.log`; TensorBoard events beside it
                       checkpoint.pt    the newest state, checkpoint.previous.pt the one before it
                       result.json      written by `Run.finish`
                       .lock            empty; held by the process that trains

The pattern in a training script:

    with Run("graphs", "gcn-cora-dfa-0", config, config.out, config.resume) as run:
        state = {"model": model, "optimizer": optimizer}  # all that has a state_dict
        done = run.resume(state)                          # 0 without --resume, or before the first checkpoint
        for step in run.track(range(done + 1, config.steps + 1), "gcn, dfa"):
            loss = train_step(...)
            run.log(step, loss=loss)
            run.save(step, **state)
        run.finish(model="gcn", dataset="cora", method="dfa", seed=0, metrics={"test_accuracy": ...})

Several processes that train one model (`harness.processes`) make all these calls; the first alone writes and prints.
A training that is to leave no folder, such as a cell of a table, is given a `NullRun` (`harness.run.null`).
"""

import json
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from harness.errors import UserError, writing
from harness.files import hold, write_whole
from harness.processes import check_joined, current
from harness.run.ending import ending, short_result
from harness.run.launch import check_launch
from harness.run.metrics import Board, MetricsFile, Trackers
from harness.run.numbers import check_loss, number_of
from harness.run.progress import Bar
from harness.tables.results import PLACES, given, make_result, plain

T = TypeVar("T")


def read_config(folder: Path, way_out: str = "Start over with --out") -> dict[str, Any]:
    """The configuration of the run in `folder`, as it was written to its `config.yaml`.

    Raises:
        UserError: the file is missing or damaged; `way_out` ends the message.
    """
    import yaml

    path = folder / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:  # ValueError: an invalid date or bytes
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}). {way_out}.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} is not the configuration of a run. {way_out}.")
    return found


class Run:
    """The folder of one training run; see the module for how a script uses it.

    Args:
        task: Name of the task's folder.
        name: Name of the run within the task.
        config: The resolved configuration, a dataclass or a mapping.
        out: The folder to write to; None is `runs/<task>/<name>` below the current folder.
        resume: Continue what the folder holds. A run that was not interrupted, or never started, runs as usual.
        lengths: Settings that may be larger than when the run was started, which prolongs it: name to the reason why
            they may not, which is empty if they may.
        may_change: Names of options that may be others then, for they do not decide what is trained.
        trackers: Where numbers go besides the folder, see `harness.run.metrics.Trackers`.

    Raises:
        UserError: the folder holds a run and `resume` is not set, or holds the run of another configuration, or cannot
            be written to, or another process trains in it; or several processes were started and the task trains in
            one; or a tracker cannot be started.
    """

    def __init__(
        self,
        task: str,
        name: str,
        config: Any,
        out: Path | None = None,
        resume: bool = False,
        lengths: Mapping[str, str] | None = None,
        may_change: Collection[str] = (),
        trackers: Collection[str] = (),
    ) -> None:
        self._may_change = PLACES | set(may_change)
        self.task, self.name, self.config, self._resumes = task, name, config, resume
        self._lengths = lengths or {}
        self.folder = Path(out) if out is not None else Path("runs") / task / re.sub(r"[/:]", "-", name)
        self._metrics = MetricsFile(self.folder / "metrics.jsonl")
        self._board, self._trackers, self._bar = Board(self.folder), Trackers(), Bar()
        self._tracker_names = tuple(trackers)
        self._held: Any = None  # the lock of the folder
        self._earlier = 0.0  # seconds spent before the interruption
        self._start = time.perf_counter()
        self._last_step = 0
        self._processes = current()
        check_joined(self._processes, task)
        settings = plain(config)
        check_launch(task, settings.get("precision"), settings.get("compile"))
        if self._processes.is_main:
            self._hold_folder()
            try:
                self._open_folder()
            except BaseException:
                self.__exit__(None, None, None)
                raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt and self._processes.is_main:
            saved = (self.folder / "checkpoint.pt").exists()
            where = "its last checkpoint" if saved else "the beginning, as it has no checkpoint yet"
            print(f"{self.folder}: --resume goes on from {where}", file=sys.stderr)
        self._board.close()
        self._trackers.close()
        if self._held is not None:
            self._held.release()

    @property
    def seconds(self) -> float:
        """Wall-clock time so far, the time before an interruption included."""
        return self._earlier + time.perf_counter() - self._start

    def log(self, step: int, **scalars: Any) -> None:
        """Add a line of numbers to `metrics.jsonl`, to TensorBoard and to the trackers, and the loss to the bar.

        Raises:
            TypeError: something is not one number; names it, and nothing is written.
            NonFiniteLoss: a number whose name contains "loss" is not finite. It is written first, as null.
        """
        numbers = {name: number_of(name, value) for name, value in scalars.items()}
        if self._processes.is_main:
            self._metrics.append({"step": step} | plain(numbers))
            self._board.log(numbers, step, self._last_step)
            self._trackers.log(numbers, step)
            self._bar.show(next((value for name, value in numbers.items() if "loss" in name), None), now=True)
        for name, value in numbers.items():
            if "loss" in name:
                check_loss(value, step, f"Lower the learning rate; the last good checkpoint stays in {self.folder}")

    def save(self, step: int, **state: Any) -> None:
        """Write a checkpoint: `state`, `step`, the global generators, and how much of `metrics.jsonl` belongs to it.

        Call it last in a step: what the script logs or draws between this and the next step would be lost by a resume.

        Args:
            step: Steps (or epochs) done; `restore` returns it.
            **state: Things with a `state_dict`, or tensors, numbers, strings, and lists or dicts of them.

        Raises:
            TypeError: something in `state` could not be read back without running code from the file; names it.
            UserError: it could not be written; the checkpoint before it is intact.
        """
        from harness.run.checkpoint import write_checkpoint
        from harness.seeds import generator_states

        state = {name: thing.state_dict() if hasattr(thing, "state_dict") else thing for name, thing in state.items()}
        generators = generator_states()
        of_others = self._processes.gather(generators)[1:]
        if not self._processes.is_main:
            return
        self._board.flush()
        metrics_bytes = self._metrics.sync()
        content = {"step": step, "seconds": self.seconds, "metrics_bytes": metrics_bytes, "generators": generators}
        if of_others:
            content["generators_of_others"] = of_others
        write_checkpoint(self.folder, content | {"state": state})

    def restore(self, by_others: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any] | None:
        """What the last `save` was given, and its "step"; sets the generators and drops what was logged after it.

        Returns None, and empties `metrics.jsonl`, without `resume` or when the run was killed before its first
        checkpoint. Call it after everything that draws random numbers to build the model.

        Args:
            by_others: Whether a saved state may be resumed by another number of processes; None: it may not.

        Raises:
            UserError: another number of processes saved it, and none but as many may go on.
        """
        from harness.run.checkpoint import TEMPORARY, read_checkpoint
        from harness.seeds import set_generator_states

        if self._processes.is_main:
            (self.folder / TEMPORARY).unlink(missing_ok=True)  # left by a killed process
        content = read_checkpoint(self.folder, or_previous=True) if self._resumes else None
        if content is None:
            if self._processes.is_main:
                self._metrics.cut(0)
            return None
        generators = [content["generators"], *content.get("generators_of_others", [])]
        before, now = len(generators), self._processes.size
        if before != now and (by_others is None or not by_others(content["state"])):
            raise UserError(
                f"{self.folder} holds a run of {before} process{'es' if before > 1 else ''}, and this is one of {now}. "
                "Resume it with as many, or start another with --out."
            )
        if before != now:
            self.say(f"Begun by {before} and resumed by {now} processes: random numbers such as dropout's are others.")
        if self._processes.is_main:
            self._metrics.cut(content["metrics_bytes"])
        self._last_step = content["step"]
        self._earlier, self._start = content["seconds"], time.perf_counter()
        if self._processes.rank < before:
            set_generator_states(generators[self._processes.rank])
        return content["state"] | {"step": content["step"]}

    def resume(self, state: Mapping[str, Any]) -> int:
        """Restore every object in `state` from the last `save`, by its `load_state_dict`.

        Returns:
            The step of that checkpoint; 0 where there is none, see `restore`.

        Raises:
            UserError: the checkpoint lacks a part, because an earlier version wrote it.
        """
        found = self.restore()
        if found is None:
            return 0
        if lacking := [name for name in state if name not in found]:
            raise UserError(
                f"{self.folder}: its checkpoint lacks {', '.join(lacking)}, so an earlier version wrote it. Start over "
                "with --out."
            )
        for name, thing in state.items():
            thing.load_state_dict(found[name])
        return int(found["step"])

    def keep(self, name: str, text: str) -> None:
        """Write a file that belongs to the run into its folder."""
        if self._processes.is_main:
            write_whole(self.folder / name, text)

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """`iterable` behind a progress bar; see `harness.run.progress.Bar`."""
        return self._bar.track(iterable, description, total) if self._processes.is_main else iter(iterable)

    def show(self, loss: Any, count: int = 1) -> None:
        """Show the loss of a step beside the bar, divided by `count`; see `harness.run.progress.Bar.show`."""
        self._bar.show(loss, count)

    def say(self, text: str) -> None:
        """Print a line, in the first process."""
        if self._processes.is_main:
            print(text, flush=True)

    def finish(
        self,
        *,
        model: str,
        metrics: dict[str, Any],
        device: Any = None,
        curves: dict[str, Any] | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        """Write `result.json`; print a few lines for people, and a short result as one line of JSON.

        For the arguments see `harness.tables.results.make_result`. "dataset", "method" and "seed" are those of the
        configuration, and the device is its, unless they are given. Returns the whole result.
        """
        result = self._result(model=model, metrics=metrics, device=device, curves=curves, **about)
        if not self._processes.is_main:
            return result
        write_whole(self.folder / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
        print(ending(result, self.folder), short_result(result, self.folder), sep="\n", flush=True)
        return result

    def _result(self, *, device: Any, **about: Any) -> dict[str, Any]:
        from harness.device import pick_device

        settings = plain(self.config)
        about = {name: settings.get(name) for name in ("dataset", "method", "seed")} | about
        device = pick_device(settings.get("device") or "auto") if device is None else device
        return make_result(task=self.task, config=self.config, seconds=self.seconds, device=device, **about)

    def _hold_folder(self) -> None:
        """Make the folder and lock it while this process trains."""
        from filelock import Timeout

        with writing(self.folder, "Choose another folder with --out"):
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._held = hold(self.folder / ".lock", wait=False, way_out="Choose another folder with --out")
        except Timeout:
            way_out = "Wait until it ends, or choose another folder with --out"
            raise UserError(f"another process is training in {self.folder}. {way_out}.") from None

    def _open_folder(self) -> None:
        """Refuse a folder that is in use, else write `config.yaml`.

        A folder without numbers or checkpoints, whose run ended before its first step, counts as free.
        """
        with writing(self.folder, "Choose another folder with --out"):
            written = ("result.json", "checkpoint.pt", "checkpoint.previous.pt")
            taken = any((self.folder / name).exists() for name in written) or self._metrics.size() > 0
        if taken and not self._resumes:
            state = "a finished run" if (self.folder / "result.json").exists() else "a run that was started"
            way_out = "Continue it with --resume, or choose another folder with --out"
            raise UserError(f"{self.folder} holds {state}. {way_out}.")
        if taken:
            self._compare_config()
        import yaml

        settings = plain(self.config)
        write_whole(self.folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
        self._trackers.start(self._tracker_names, self.task, self.name, self.folder, settings)

    def _compare_config(self) -> None:
        before, now = given(read_config(self.folder)), given(plain(self.config))
        changed = [
            name for name in sorted((set(before) | set(now)) - self._may_change) if before.get(name) != now.get(name)
        ]
        longer = [name for name in changed if name in self._lengths and now.get(name, 0) > before.get(name, math.inf)]
        for name in longer:
            if why := self._lengths[name]:
                raise UserError(
                    f"{self.folder} holds a run of {before[name]} {name}, and {why}, so that it cannot be prolonged to "
                    f"{now[name]}. Resume it as it was, or start another with --out."
                )
        if others := [f"{name}: {before.get(name)} -> {now.get(name)}" for name in changed if name not in longer]:
            way_out = "Resume it with the options it was started with (config.yaml in it), or start another with --out"
            raise UserError(f"{self.folder} holds a run of another configuration ({', '.join(others)}). {way_out}.")
