"""An online core over models small enough to compute by hand, on an event loop of the test's own."""

import asyncio

from fakes import ManualClock
from made_pages import stable_page
from small_pipeline import COLUMNS, lane_of, model_of

from app.answering.lineup import lineup_of
from app.serving.core import OnlineCore
from app.serving.online_policy import OnlinePolicy


class Seen:
    """An OnlineObserver that remembers."""

    def __init__(self):
        self.batches, self.commits = [], []

    def batch_scored(self, fact):
        self.batches.append(fact)

    def committed(self, fact):
        self.commits.append(fact)


class OnlineWorld:
    """A core whose versions are `models`, by default one; `page` chooses among them."""

    def __init__(self, *models, page=None, **policy):
        self.clock, self.seen = ManualClock(), Seen()
        self.models = models or (model_of("7"),)
        self.core = OnlineCore("churn", COLUMNS, OnlinePolicy(**policy), self.clock, self.seen)
        self.lanes = {model.version: lane_of(model, self.clock) for model in self.models}
        self.use(page or stable_page(self.models[0].version))

    def use(self, page):
        """From now on this page is in force."""
        self.core.serve(lineup_of(page, self.lanes))

    @property
    def sizes(self):
        """Rows in each batch so far."""
        return [fact.rows for fact in self.seen.batches]


def run(scenario):
    """The result of a coroutine; one that hangs is a failure within seconds."""

    async def bounded():
        async with asyncio.timeout(20):
            return await scenario

    return asyncio.run(bounded())


async def rounds(many=5):
    """Let everything that can happen without waiting happen."""
    for _ in range(many):
        await asyncio.sleep(0)
