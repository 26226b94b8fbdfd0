"""A real HTTP server on a free port, over models small enough to compute by hand; on a thread of its own."""

import asyncio
import threading

import httpx2
from made_pages import stable_page
from online_world import Seen
from small_pipeline import COLUMNS, lane_of, model_of

from app.answering.lineup import lineup_of
from app.clock import SystemClock
from app.serving.core import OnlineCore
from app.serving.gate import Gate
from app.serving.online_policy import OnlinePolicy
from app.serving.rest import Routes, application
from app.serving.rest_plain import Served
from app.serving.rest_server import RestServer, ServerPolicy

WAIT_S = 30.0


class RestWorld:
    """The server at `url`; `calls` has (route, status) of each request, `reload` gives what reloading is to give."""

    def __init__(
        self, *models, page=None, gate=None, routes=None, server=None, ready=True, held=None, tracing=None, **policy
    ):
        self.models = models or (model_of("7"),)
        self.clock, self.seen, self.calls = SystemClock(), Seen(), []
        self.reload = lambda: None
        self.core = OnlineCore("churn", COLUMNS, OnlinePolicy(**policy), self.clock, self.seen, tracing)
        self._tracing = tracing
        self.lanes = {model.version: lane_of(model, self.clock) for model in self.models}
        self._page = page or stable_page(self.models[0].version)
        if ready:
            self.use(self._page)
        self._gate = gate or Gate([], ["boss"], None, self.clock)
        self._routes, self._server_policy, self._held = routes or Routes(), server or ServerPolicy(), held
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def use(self, page):
        """From now on this page is in force."""
        self.core.serve(lineup_of(page, self.lanes))

    def call_ended(self, method, code, seconds):
        self.calls.append((method, code))

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(WAIT_S)
        scheme = "https" if self._server_policy.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.client = httpx2.Client(base_url=self.url, timeout=WAIT_S, trust_env=False)
        return self

    def __exit__(self, *_):
        self.end()
        self.client.close()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def end(self):
        """Begin to end; waits for nothing."""
        self._loop.call_soon_threadsafe(self._ending.set)

    def post(self, path, page=None, **more):
        return self.client.post(path, json=page, **more) if page is not None else self.client.post(path, **more)

    def get(self, path, **more):
        return self.client.get(path, **more)

    def _reload(self):
        return self.reload()

    async def _run(self):
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        served = Served(self.core, self._reload)
        app = application(
            {"churn": served}, "churn", self._gate, self._routes, self, lambda: b"# metrics\n", self._ending,
            self._held, self._tracing,
        )  # fmt: skip
        server = RestServer(app, self._server_policy)
        self.port = server.port
        await server.start()
        self._started.set()
        await self._ending.wait()
        await server.stop(5.0)
        await self.core.drain(5.0)
