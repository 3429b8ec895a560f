"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI in subclass mode over tasks and datamodules.

What is added to it: run folders ``runs/NAME/VERSION``, ``--ckpt_path best|last``, mistakes in one line, default loggers
and checkpoints, and plain output where there is no terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import rank_zero_only

import jellyfit
from jellyfit.callbacks import InterruptCheckpoint, MetricsCSV, PlainProgress, PredictionsCSV, ProgressBar
from jellyfit.config_errors import find_mistake, merge_arguments, nearest
from jellyfit.errors import ConfigError, ControlError, JellyfitError
from jellyfit.memory import keep_freed_memory
from jellyfit.runs import (
    CHECKPOINTS,
    PICTURES,
    find_checkpoint,
    is_checkpoint,
    is_sharded,
    job_run,
    new_run,
    next_version,
    run_of_checkpoint,
)
from jellyfit.tasks import Task

__all__ = ["JellyfitCLI", "run", "run_data"]

RUN_FOLDER_VARIABLE = "JELLYFIT_RUN_FOLDER"  # tells the other processes of this node where the first one writes

# Advice of Lightning's that does not apply: sequences as batches, data held in memory, our own seeds and folders.
_NOT_FOR_USERS = (
    r".*does not have many workers which may be a bottleneck.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*The dirpath has changed from.*",
    r".*Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",
    r".*Starting from v1\.9\.0, `tensorboardX`.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"FSDP2-wrapped module .* returned a view tensor.*",
    r"Detected an existing checkpoint in .*, overwriting.*",
)


class _UsageError(Exception):
    """jsonargparse refused the arguments; the message is its own."""


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise _UsageError(message)


class _SaveConfig(SaveConfigCallback):
    """Write the whole configuration as ``config.yaml`` into the run folder, whatever the logger is."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = getattr(trainer, "run_folder", None)
        if self.already_saved or folder is None or not trainer.is_global_zero:
            return
        self.already_saved = True
        content = self.parser.dump(self.config, skip_none=False)
        path, number = Path(folder) / "config.yaml", 0
        while path.is_file() and path.read_text() != content:  # gone on with other settings: keep both
            number += 1
            path = Path(folder) / f"config-{number}.yaml"
        if number and stage != "fit":
            return  # testing a run leaves its configuration alone
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


class JellyfitCLI(LightningCLI):
    """The command line of one verb; see the module's docstring."""

    def __init__(self, args: ArgsType = None) -> None:
        _quiet()
        self.run_folder: Path | None = None
        self.made_folder = False
        super().__init__(
            Task,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            parser_class=_Parser,
            parser_kwargs={"allow_abbrev": False, **{verb: {"allow_abbrev": False} for verb in self.subcommands()}},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=args,
        )

    # ------------------------------------------------------------ arguments

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"jellyfit=={jellyfit.__version__}"])
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="name of the run; default: the config file's")
        parser.add_argument("--runs", type=str, default="runs", help="folder in which run folders lie")
        parser.set_defaults({"trainer.max_epochs": 10})

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("test", "validate"):
            parser.set_defaults({"verbose": False})
        return parser

    @property
    def _arguments(self) -> Any:
        return self.config[str(self.config.subcommand)]

    def _parse_ckpt_path(self) -> None:
        """Find ``best`` and ``last``. The configuration given wins over the checkpoint's; differences are told."""
        arguments = self._arguments
        if arguments.name is None:
            arguments.name = self._default_name()
        self._go_on_with_job()
        checkpoint = arguments.get("ckpt_path")
        if checkpoint is None:
            return
        if checkpoint in ("best", "last"):
            arguments.ckpt_path = str(find_checkpoint(Path(arguments.runs), arguments.name, checkpoint))
        elif not Path(checkpoint).exists() and "://" not in checkpoint:
            raise ConfigError(
                f"--ckpt_path {checkpoint}: no such file. Give the path of a checkpoint, or 'best' or 'last' for those "
                f"of the newest run called {arguments.name!r}."
            )
        if _first_process():
            self._tell_differences(Path(arguments.ckpt_path))

    def _go_on_with_job(self) -> None:
        """A cluster job that is started again goes on from its own last checkpoint, whatever it began with."""
        arguments = self._arguments
        run_folder = job_run(self._root(), arguments.name)
        if self.config.subcommand != "fit" or run_folder is None or arguments.trainer.fast_dev_run:
            return
        last = run_folder / CHECKPOINTS / "last.ckpt"
        if is_checkpoint(last):
            arguments.ckpt_path = str(last)
            if _first_process():
                print(f"{run_folder.name} was started before: goes on from {last}", flush=True)

    def _root(self) -> Path:
        return Path(self._arguments.trainer.default_root_dir or self._arguments.runs)

    def _default_name(self) -> str:
        files = self._arguments.get("config") or []
        return Path(str(files[0])).stem if files else "run"

    def _tell_differences(self, path: Path) -> None:
        sharded = is_sharded(path)
        if sharded and "ModelParallel" not in str(self._arguments.trainer.strategy):
            raise ConfigError(
                f"--ckpt_path {path}: a sharded checkpoint, for ModelParallelStrategy alone. Make one file of it: "
                f"python -c \"from jellyfit.sharding import consolidate; consolidate('{path}', 'one.ckpt')\""
            )
        if path.is_dir() and not sharded:
            raise ConfigError(f"--ckpt_path {path}: a folder; give the path of a checkpoint file.")
        if not path.exists():
            return
        try:
            file = path / "meta.pt" if sharded else path
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"--ckpt_path {path}: not a checkpoint that can be read ({reason}).") from error
        if not isinstance(content, dict) or ("state_dict" not in content and not sharded):
            raise ConfigError(f"--ckpt_path {path}: not a checkpoint of Lightning's; it holds no 'state_dict'.")
        saved = dict(content.get("hyper_parameters") or {})
        saved.pop("_instantiator", None)
        if not saved:
            return
        self._dump_config()
        model = self.config_dump["model"]
        given = _flat({"class_path": model["class_path"], **(model.get("init_args") or {})})
        before = _flat({"class_path": saved.pop("_class_path", model["class_path"]), **saved})
        keys = [key for key in {**before, **given} if before.get(key) != given.get(key)]
        changed = [f"{key}: {before.get(key)!r} then, {given.get(key)!r} now" for key in keys]
        if changed:
            shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            run_folder = run_of_checkpoint(path)
            hint = f" (-c {run_folder / 'config.yaml'} has the old ones)" if run_folder else ""
            print(
                f"Note: {path} was trained with other settings of the model; those given now are used{hint}: {shown}."
            )

    # ------------------------------------------------------------ run folder, loggers, callbacks

    def before_instantiate_classes(self) -> None:
        arguments = self._arguments
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun decides how many there are, each time it starts them
            each = int(os.environ["LOCAL_WORLD_SIZE"])
            arguments.trainer.num_nodes = int(os.environ["WORLD_SIZE"]) // each
            if arguments.trainer.devices == "auto":
                arguments.trainer.devices = each
        if not arguments.trainer.fast_dev_run:
            self.run_folder = self._choose_run_folder()
            loggers = arguments.trainer.logger
            for logger in loggers if isinstance(loggers, list) else [loggers]:
                init = logger.get("init_args") if hasattr(logger, "get") else None
                if init is not None and "save_dir" in init and init["save_dir"] in (None, "."):
                    init["save_dir"] = str(self.run_folder)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except BaseException as error:
            self._release_run_folder()
            if not isinstance(error, Exception):
                raise
            reason: BaseException | None = error
            while reason is not None and not isinstance(reason, JellyfitError):
                reason = reason.__cause__ or reason.__context__
            if reason is None:
                raise
            raise ConfigError(str(reason)) from error

    def _choose_run_folder(self) -> Path:
        arguments = self._arguments
        root = self._root()
        checkpoint = Path(arguments.ckpt_path) if arguments.get("ckpt_path") else None
        same_run = run_of_checkpoint(checkpoint) if checkpoint is not None else None
        if same_run is not None and (self.config.subcommand != "fit" or checkpoint.stem == "last"):  # type: ignore[union-attr]
            return same_run
        if RUN_FOLDER_VARIABLE in os.environ:
            return Path(os.environ[RUN_FOLDER_VARIABLE])
        of_job = job_run(root, arguments.name) if self.config.subcommand == "fit" else None
        if not _first_process():
            return of_job or next_version(root, arguments.name)  # of another node: it writes nothing
        self.made_folder = True
        folder = new_run(root, arguments.name, of_job)
        os.environ[RUN_FOLDER_VARIABLE] = str(folder)
        return folder

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        given = config.get("callbacks") or []
        callbacks = [given] if isinstance(given, Callback) else list(given)  # Lightning takes one alone, too
        callbacks += self._default_callbacks(callbacks, config)
        kwargs["callbacks"] = callbacks
        if not sys.stdout.isatty():
            kwargs["enable_progress_bar"] = False
            if config.get("enable_model_summary") is None:
                kwargs["enable_model_summary"] = False
        if self.run_folder is not None:
            kwargs["default_root_dir"] = str(self.run_folder)
            kwargs["logger"] = self._loggers(config.get("logger"))
        trainer = super().instantiate_trainer(**kwargs)
        trainer.run_folder = self.run_folder  # type: ignore[attr-defined]
        return trainer

    def _loggers(self, given: Any) -> list[Logger] | bool:
        if given is False or self.subcommand == "predict":
            return False
        assert self.run_folder is not None
        filename = "metrics.csv" if self.subcommand == "fit" else f"{self.subcommand}_metrics.csv"
        csv = MetricsCSV(self.run_folder, filename)
        if given is None or given is True:
            return [csv, TensorBoardLogger(self.run_folder, name="", version="tensorboard", default_hp_metric=False)]
        return [*(given if isinstance(given, list) else [given]), csv]

    def _default_callbacks(self, given: Sequence[Callback], config: Any) -> list[Callback]:
        added: list[Callback] = []
        if sys.stdout.isatty():
            own = any(isinstance(callback, AnyProgressBar) for callback in given)
            if config.get("enable_progress_bar") is not False and not own:
                added.append(ProgressBar())
        elif config.get("enable_progress_bar") is not False:
            added.append(PlainProgress())
        if self.subcommand == "predict" and not any(isinstance(callback, PredictionsCSV) for callback in given):
            added.append(PredictionsCSV())
        if self.subcommand != "fit" or self.run_folder is None or config.get("enable_checkpointing") is False:
            return added
        added.append(InterruptCheckpoint())
        if not any(isinstance(callback, ModelCheckpoint) for callback in given):
            folder = self.run_folder / CHECKPOINTS
            common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
            task = self.model
            best = {"monitor": task.monitor, "mode": task.mode, "save_weights_only": task.weights_only_best}
            added.append(ModelCheckpoint(filename="best", **best, **common))
            added.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common))
        return added

    # ------------------------------------------------------------ running

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand != "fit" and self._arguments.get("ckpt_path") is None and _first_process():
            print("Note: no --ckpt_path given: the network has its initial, untrained weights (--ckpt_path best).")
        try:
            self._announce(subcommand)
            super()._run_subcommand(subcommand)
        except SystemExit:
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                self._say_interrupted()
                raise KeyboardInterrupt from None  # Lightning exits with 1; main ends with 130
            raise
        except MisconfigurationException as error:
            raise ConfigError(str(error)) from error
        except ControlError as error:
            if error.resumable and not self.trainer.is_global_zero:
                raise SystemExit(0) from None  # the first process raises the same; Lightning kills it if others fail
            if self._saved() is not None:
                error.__notes__ = [*error.__notes__, f"When it is mended, go on: {self._go_on()}"]
            raise
        except RuntimeError as error:
            if "loading state_dict" in str(error):
                raise ConfigError(_state_dict_message(str(error), self._arguments.ckpt_path)) from error
            if "were not used in producing the loss" in str(error):
                raise ConfigError(_unused_message(self.model)) from error
            raise
        finally:
            self._release_run_folder()
        self._report(subcommand)

    def _release_run_folder(self) -> None:
        if not self.made_folder or self.run_folder is None:
            return
        os.environ.pop(RUN_FOLDER_VARIABLE, None)
        with suppress(OSError):  # nothing came of it: leave no empty folders
            for folder in (self.run_folder, self.run_folder.parent, self.run_folder.parent.parent):
                folder.rmdir()

    def _announce(self, subcommand: str) -> None:
        if _first_process() and not sys.stdout.isatty():
            network = self.model.network
            what = type(self.model).__name__
            if network is not None:
                number = sum(parameter.numel() for parameter in network.parameters())
                what = f"{type(network).__name__}, {number:,} parameters"
            folder = "nothing is written" if self.run_folder is None else f"folder {self.run_folder}"
            print(f"jellyfit {subcommand}: {what}, {folder}")

    def _saved(self) -> InterruptCheckpoint | None:
        """The callback that has saved what an interrupted run goes on from, if any has."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((c for c in callbacks if isinstance(c, InterruptCheckpoint) and c.saved is not None), None)

    def _go_on(self) -> str:
        """The command that goes on from there."""
        again = " ".join(argument for argument in sys.argv[1:] if not argument.startswith("--ckpt_path"))
        return f"jellyfit {again} --ckpt_path last"

    def _say_interrupted(self) -> None:
        callback = self._saved()
        if callback is None:
            return
        if callback.requeued is not None:
            print(f"Saved {callback.saved}. Job {callback.requeued} is queued again and goes on.", flush=True)
        else:
            print(f"Saved {callback.saved}. Go on: {self._go_on()}", flush=True)

    def _report(self, subcommand: str) -> None:
        if not _first_process():
            return
        trainer = self.trainer
        if subcommand in ("test", "validate"):
            for name, value in sorted(trainer.callback_metrics.items()):
                if not name.startswith("firing_rate/"):
                    print(f"{name}: {float(value):.4f}")
        if subcommand == "test":
            for line in self.model.summary():
                print(line)
        if self.run_folder is None:
            return
        print(f"Run folder: {self.run_folder}")
        best = next((c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)), None)
        if subcommand == "fit" and isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            print(f"Best {best.monitor}: {float(best.best_model_score):.4f} ({best.best_model_path})")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionsCSV) and callback.path is not None:
                print(f"Predictions: {callback.path}")
        pictures = sorted(path.name for path in (self.run_folder / PICTURES).glob("*.png"))
        tested = ("test_", "confusion_matrix.png", "learning_curve.png")
        shown = [name for name in pictures if name.startswith(tested) == (subcommand == "test")]
        if shown and subcommand in ("fit", "test"):
            print(f"Pictures: {self.run_folder / PICTURES}/{{{','.join(shown)}}}")


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run ``verb`` with command-line ``arguments``.

    Raises:
        ConfigError: a mistake in the arguments or in the configuration, in one line.
        KeyboardInterrupt: Ctrl-C; everything is saved.
    """
    arguments = _find_bundled_configs(arguments)
    sys.argv = [sys.argv[0], verb, *arguments]
    keep_freed_memory()
    try:
        JellyfitCLI()
    except _UsageError as error:
        mistake = find_mistake(
            arguments,
            {"trainer": pl.Trainer, "model": Task, "data": pl.LightningDataModule},
            ("seed_everything", "name", "runs", *_verb_keys(verb)),
            ("model", "data"),
        )
        if mistake and mistake.startswith("trainer.logger") and ".save_dir: missing" in mistake:
            mistake += " (save_dir=. stands for the run folder)"
        raise ConfigError(mistake or _condensed(str(error))) from error


def run_data(arguments: Sequence[str]) -> int:
    """``jellyfit data prepare|check``: make a data set ready, or read every byte of it; gives the exit status.

    Args:
        arguments: after the verb: ``prepare`` or ``check``, then those of ``jellyfit fit``, of which the section
            ``data`` counts.

    Raises:
        ConfigError: a mistake in the arguments or in the configuration, in one line.
        DataError: the data set cannot be made ready.
    """
    if not arguments or arguments[0] not in ("prepare", "check"):
        given = f"; got {arguments[0]!r}{nearest(arguments[0], ('prepare', 'check'))}" if arguments else ""
        raise ConfigError(f"expected 'prepare' or 'check'{given}. For example: jellyfit data prepare -c FILE.yaml")
    what, rest = arguments[0], _find_bundled_configs(arguments[1:])
    _quiet()
    parser = _Parser()
    parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True, required=True)
    try:
        data = merge_arguments(rest).get("data")
        made = parser.instantiate_classes(parser.parse_object({"data": data})).data
    except (_UsageError, AttributeError, KeyError) as error:
        known = ("seed_everything", "name", "runs", "trainer", "model", *_verb_keys("fit"))
        mistake = find_mistake(rest, {"data": pl.LightningDataModule}, known, ("data",))
        raise ConfigError(mistake or _condensed(str(error))) from error
    made.prepare_data()
    if what == "check" and hasattr(made, "problems"):
        problems = made.problems()
        print("\n".join([made.summary(), *(f"  problem: {problem}" for problem in problems)]))
        if not problems:
            print("  every byte is as it should be")
        return 1 if problems else 0
    print(made.summary() if hasattr(made, "summary") else f"{type(made).__name__} is ready")
    return 0


def _verb_keys(verb: str) -> list[str]:
    import inspect

    return [name for name in inspect.signature(getattr(pl.Trainer, verb)).parameters if name not in ("self", "model")]


def _find_bundled_configs(arguments: Sequence[str]) -> list[str]:
    """``-c configs/digits.yaml`` works without a clone too: the package brings its configs along."""
    found = list(arguments)
    for i, argument in enumerate(found):
        flag, _, value = argument.partition("=")
        if flag in ("-c", "--config"):
            j, path = (i, value) if value else (i + 1, found[i + 1] if i + 1 < len(found) else "")
            bundled = Path(__file__).parent / "configs" / Path(path).name
            if path and not Path(path).exists() and path.startswith("configs/") and bundled.is_file():
                found[j] = f"{flag}={bundled}" if value else str(bundled)
    return found


def _first_process() -> bool:
    """Whether this is the one process that writes files and talks (before a trainer can tell)."""
    return not getattr(rank_zero_only, "rank", 0)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as ``{"a.b": value}``, without the levels ``init_args`` and without what is null."""
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flat(item, path if key == "init_args" else f"{path}.{key}".lstrip(".")))
        return flat
    return {} if value is None else {path: value}


def _quiet() -> None:
    """Leave out Lightning's general advice; warnings that a user can act on stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message)


def _condensed(message: str) -> str:
    """Jsonargparse's message in one line: its innermost reason."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    reasons = [line for line in lines if not line.startswith(("Given value", "Subtypes", "Errors", "Problem"))]
    return " ".join(reasons[:3]) if reasons else message


def _unused_message(model: pl.LightningModule) -> str:
    """Why DDP waits for gradients that never come."""
    named = model.named_parameters()
    names = [name for name, parameter in named if parameter.requires_grad and parameter.grad is None]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"with several processes: the parameters {shown} got no gradient in a step; each process waits for those of "
        "the others. If used in some steps only: --trainer.strategy=ddp_find_unused_parameters_true (a pass over "
        "the graph more in each step). If never: take them out, or freeze them (requires_grad_(False))."
    )


def _state_dict_message(message: str, checkpoint: str) -> str:
    """Why a checkpoint does not fit the network, in a few lines."""
    details = [line.strip() for line in message.splitlines()[1:] if line.strip()]
    shown = " ".join(details[:3]) + (f" (and {len(details) - 3} more)" if len(details) > 3 else "")
    run_folder = run_of_checkpoint(Path(checkpoint))
    advice = f" Use the configuration it was trained with: -c {run_folder / 'config.yaml'}." if run_folder else ""
    return f"checkpoint {checkpoint} does not fit this network: {shown}{advice}"
