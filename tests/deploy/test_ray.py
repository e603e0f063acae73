"""The application on a real local Ray: started by `serve run`, reached through Serve's proxy."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("ray")

from support.local_ray import LocalRay, local_ray
from support.pinned import PINNED
from support.speech import clip, word_error_rate
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tympan.client.stream import connect as connect_ours
from tympan.config import load_config
from tympan.deploy.ray_app import HEALTH_TIMEOUT_SECONDS, Replica, app
from tympan.engine.scripted import FRAME_SECONDS, INFO, scripted_words
from tympan.errors import EngineError
from tympan.messages import Complete, Word

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(180)]
SCRIPTED = {"model": "scripted", "scaledown_window": 2}
CHUNK = bytes(2 * 5 * INFO.frame_samples)
CHUNK_SECONDS = 5 * FRAME_SECONDS
LONGEST_PAUSE = 2.5


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalRay]:
    with local_ray() as running:
        yield running


class Talker:
    """A client that sends audio at four times real time until it is ended, and keeps the messages it receives.

    `code` is the server's close code; None if the connection is open or broke without a close frame.
    """

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self.socket, self.session = socket, session
        self.messages: list[dict[str, Any]] = []
        self.code: int | None = None
        self._sending = asyncio.create_task(self._send())
        self.ended = asyncio.create_task(self._receive())

    async def _send(self) -> None:
        try:
            while True:
                await self.socket.send(CHUNK)
                await asyncio.sleep(CHUNK_SECONDS / 4)
        except ConnectionClosed:
            pass

    async def _receive(self) -> None:
        try:
            while True:
                self.messages.append(json.loads(await self.socket.recv()))
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else None

    async def finish(self) -> None:
        """Finish the audio and wait for the end of the session."""
        await self.stop_sending()
        await self.socket.send("EOS")
        await self.ended

    async def stop_sending(self) -> None:
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    def has_every_word(self) -> bool:
        """Return whether each word of the audio that the server received has arrived, once and in order."""
        complete = self.messages[-1]
        frames = round(complete["audio_seconds"] / FRAME_SECONDS)
        words = [message["text"] for message in self.messages if message["type"] == "word"]
        return complete["type"] == "complete" and words == [word.text for word in scripted_words(frames)]


async def talker(cluster: LocalRay) -> Talker:
    socket = await connect(f"{cluster.stream_url}?events=ready,word", open_timeout=60)
    return Talker(socket, json.loads(await socket.recv())["session"])


@asynccontextmanager
async def talkers(cluster: LocalRay, count: int) -> AsyncIterator[list[Talker]]:
    everyone = [await talker(cluster) for _ in range(count)]
    try:
        yield everyone
    finally:
        for each in everyone:
            await each.stop_sending()
            await each.socket.close()


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.2)


def ask(url: str, body: bytes | None = None, **headers: str) -> Any:
    with urlopen(Request(url, body, headers), timeout=30) as response:
        return json.load(response)


def replica_of(cluster: LocalRay, session: str) -> str:
    (replica,) = cluster.replicas_of(session)
    return replica


def test_serve_options_follow_from_the_settings() -> None:
    deployment = app({"model": PINNED})._bound_deployment
    assert deployment.name == "Tympan"
    assert deployment.ray_actor_options == {"num_cpus": 4.0, "num_gpus": 1}
    assert (deployment.max_ongoing_requests, deployment.max_queued_requests) == (179, 179)
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.get_target_ongoing_requests()) == (2, 10, 143)
    assert (scaling.upscale_delay_s, scaling.downscale_delay_s) == (0, 300)
    assert deployment._deployment_config.graceful_shutdown_timeout_s == HEALTH_TIMEOUT_SECONDS + 10 + 10
    assert app({"model": "embedded"})._bound_deployment.ray_actor_options["num_gpus"] == 0


async def test_health_check_fails_without_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("tympan")
    monkeypatch.setattr(logger, "parent", logger.parent)  # a replica changes it, in its own process
    replica = Replica(load_config(environment={}, overrides={"model": "scripted"}))
    service = replica.__serve_build_asgi_app__().state.service
    with pytest.raises(EngineError, match="not running"):
        await replica.check_health()
    await service.start()
    await replica.check_health()
    await service.stop()
    with pytest.raises(EngineError, match="restarting"):
        await replica.check_health()


async def test_websocket_and_http_routes(cluster: LocalRay) -> None:
    said = clip("counting")
    with cluster.application(model="embedded", container_cpu=1, min_containers=1, api_keys="key"):
        async with connect_ours(cluster.stream_url, token="key") as stream:
            await stream.send(said.pcm())
            await stream.finish()
            words = [event.text async for event in stream if isinstance(event, Word)]
        assert word_error_rate(said.text, " ".join(words)) <= 0.1

        with pytest.raises(InvalidStatus) as refusal:
            await connect(cluster.stream_url)
        assert refusal.value.response.status_code == 401

        health = await asyncio.to_thread(ask, f"{cluster.http_url}/health")
        assert (health["model"], health["capacity"], health["active"]) == ("embedded", 1, 0)
        file = f"{cluster.http_url}/v1/listen?encoding=linear16&sample_rate=24000"
        answer = await asyncio.to_thread(ask, file, said.pcm(), Authorization="Token key")
        transcript = answer["results"]["channels"][0]["alternatives"][0]["transcript"]
        assert word_error_rate(said.text, transcript) <= 0.1


async def test_stream_outlives_another_replica(cluster: LocalRay) -> None:
    two = {"min_containers": 2, "max_containers": 2, "container_target_streams": 2, "container_max_streams": 4}
    with cluster.application(**SCRIPTED, **two):
        async with talkers(cluster, 5) as everyone:
            await until(lambda: all(cluster.replicas_of(each.session) for each in everyone))
            homes = {each: replica_of(cluster, each.session) for each in everyone}
            assert set(homes.values()) == set(cluster.states()), "both have streams"
            doomed = homes[everyone[0]]
            cluster.kill(doomed)
            for each, home in homes.items():
                if home == doomed:
                    await each.ended
                    assert each.code is None, "a killed replica sends no close frame"
            await until(lambda: doomed not in cluster.states() and list(cluster.states().values()) == ["RUNNING"] * 2)
            for each, home in homes.items():
                if home != doomed:
                    await each.finish()
                    assert (each.code, each.has_every_word()) == (1000, True)
                    assert cluster.replicas_of(each.session) == {home}


async def test_stream_outlives_the_controller(cluster: LocalRay) -> None:
    with cluster.application(**SCRIPTED, min_containers=1, max_containers=1, container_max_streams=2):
        async with talkers(cluster, 1) as (each,):
            cluster.kill_controller()
            await asyncio.sleep(2 * HEALTH_TIMEOUT_SECONDS)
            assert list(cluster.states().values()) == ["RUNNING"]
            await each.finish()
            assert (each.code, each.has_every_word()) == (1000, True)


async def test_scaling_up_and_down_loses_no_word(cluster: LocalRay, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tympan.client.connection")
    one_or_two = {"min_containers": 1, "max_containers": 2, "container_target_streams": 2, "container_max_streams": 3}
    with cluster.application(**SCRIPTED, **one_or_two):
        (old,) = cluster.states()
        async with talkers(cluster, 3) as early:
            await until(lambda: list(cluster.states().values()) == ["RUNNING"] * 2)
            async with talkers(cluster, 1) as (late,), connect_ours(cluster.stream_url) as ours:
                await ours.send(bytes(20 * len(CHUNK)))
                for each in early:
                    await each.finish()
                    assert (each.code, each.has_every_word()) == (1000, True)
                    assert cluster.replicas_of(each.session) == {old}
                new = replica_of(cluster, late.session)
                assert new != old
                assert replica_of(cluster, ours.ready.session) == new
                await until(lambda: cluster.states() == {old: "RUNNING"})
                await late.ended
                assert (late.code, late.has_every_word()) == (1012, True)
                await ours.send(bytes(20 * len(CHUNK)))
                await ours.finish()
                events = [event async for event in ours]
                (again,) = (record.args for record in caplog.records if record.msg.startswith("continuing from"))
                assert replica_of(cluster, str(again[-1])) == old, "the client reconnected by itself"
    assert isinstance(events[-1], Complete)
    starts = [0.0, *(event.start for event in events if isinstance(event, Word)), 40 * CHUNK_SECONDS]
    assert max(later - earlier for earlier, later in pairwise(starts)) < LONGEST_PAUSE


async def test_deletion_drains_after_the_grace_time(cluster: LocalRay) -> None:
    grace = 15
    with cluster.application(**SCRIPTED, min_containers=1, container_max_streams=8, exit_grace_seconds=grace):
        async with talkers(cluster, 6) as everyone:
            stopped = time.monotonic()
            deleting = asyncio.create_task(asyncio.to_thread(cluster.delete))
            await asyncio.sleep(HEALTH_TIMEOUT_SECONDS)
            for each in everyone[:3]:
                await each.finish()
                assert (each.code, each.has_every_word()) == (1000, True)
            for each in everyone[3:]:
                await each.ended
                assert (each.code, each.has_every_word()) == (1012, True)
            assert time.monotonic() - stopped > grace
            await deleting


async def test_full_deployment_queues_then_refuses(cluster: LocalRay) -> None:
    with cluster.application(**SCRIPTED, min_containers=1, max_containers=1, container_max_streams=2):
        async with talkers(cluster, 2) as inside:
            waiting = [asyncio.create_task(talker(cluster)) for _ in range(2)]
            await asyncio.sleep(2)
            with pytest.raises(HTTPError) as error:
                await asyncio.to_thread(ask, f"{cluster.http_url}/health")
            assert (error.value.code, error.value.headers["Retry-After"]) == (503, "2")
            error.value.close()
            with pytest.raises(InvalidStatus) as refusal:
                await connect(cluster.stream_url)
            assert refusal.value.response.status_code == 500, "Serve's proxy cannot answer a WebSocket with 503"
            assert not any(task.done() for task in waiting)
            inside[0].socket.transport.abort()
            await inside[1].finish()
            for late in await asyncio.gather(*waiting):
                await late.finish()
                assert (late.code, late.has_every_word()) == (1000, True)
