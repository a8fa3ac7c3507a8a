"""What every training shares with whoever watches it: progress, and loggers that keep quiet."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

Report = Callable[[str, int, int, float], None]  # stage, steps done, steps in all, loss


class Progress(Callback):
    """Tells of each optimiser step, from the first process."""

    def __init__(self, stage: str, steps: int, report: Report) -> None:
        self._stage, self._steps, self._report = stage, steps, report

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if trainer.is_global_zero:
            self._report(self._stage, trainer.global_step, self._steps, float(outputs["loss"]))


def prepared_logging() -> None:
    """Lightning's advice on workers and logging does not apply: the batches are indices, the data is in memory."""
    for noisy in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")


def fit(trainer: lightning.Trainer, stage: lightning.LightningModule, *given: Any, **options: Any) -> None:
    """Lightning's ``fit``, after which Ctrl-C is heard as before: it answers it with SystemExit, and ignores the next.

    Raises:
        KeyboardInterrupt: it was pressed.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(stage, *given, **options)
    except SystemExit:
        if not trainer.interrupted:
            raise
    finally:
        signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt
