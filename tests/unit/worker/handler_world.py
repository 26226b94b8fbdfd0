"""Small pipelines whose versions are served by handlers made in a test."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
from made_pages import stable_page
from small_pipeline import COLUMNS, SmallPipeline, model_of

from app.answering.handler_start import handled
from app.handler import Handler
from app.worker.chain import ChainPolicy

MODULE = "made_handlers"
BAD = 3.0  # the event that a handler here has trouble with
GOLDEN = {"X": np.array([[1.0], [8.0]], np.float32)}


class Plain(Handler):
    """Does by hand what the manifest says, but for its bounds."""

    def preprocess(self, batch):
        return {"X": np.array(batch.column("x").fill_null(np.nan), np.float32).reshape(-1, 1)}

    def postprocess(self, outputs):
        p = outputs["P"][:, 1]
        return {"label": (p >= 0.5).astype(np.int64), "p": p}


def named(kind):
    """The path of a class, or of anything, as settings would have it."""
    module = sys.modules.setdefault(MODULE, ModuleType(MODULE))
    module.Made = kind
    return f"{MODULE}:Made"


def start(kind, model=None, golden=None):
    """(plan, outputs) of a handler of this class."""
    return handled(named(kind), model or model_of("4"), COLUMNS, golden or GOLDEN)


class Mute(Exception):
    """Cannot even be written."""

    def __str__(self):
        raise ValueError("no")


def raising(exc):
    def fails(*_):
        raise exc

    return fails


class Odd(Plain):
    """Does something odd with a batch that has the bad event, or with every batch once `always` is set."""

    before = after = staticmethod(lambda given, good: good)
    always = False

    def preprocess(self, batch):
        good = super().preprocess(batch)
        return self.before(batch, good) if Odd.always or BAD in good["X"] else good

    def postprocess(self, outputs):
        good = super().postprocess(outputs)
        return self.after(outputs, good) if Odd.always or (good["p"] == np.float32(0.3)).any() else good


def odd(**steps):
    """A class with these oddities."""
    return type("Made", (Odd,), {name: staticmethod(step) for name, step in steps.items()})


class HandledPipeline(SmallPipeline):
    """As SmallPipeline, each version with a handler of this class."""

    def __init__(self, kind, *models, page=None, constant=None, policy=None):
        models = models or (model_of("4"),)
        super().__init__(*models, page=page, constant=constant, policy=policy or ChainPolicy())
        for version, lane in self.lanes.items():
            plan, outputs = start(kind, lane.answerer.model)
            self.lanes[version] = replace(lane, plan=plan, outputs=outputs)
        self.use(page or stable_page(self.model.version))
