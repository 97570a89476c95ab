"""The pure parts of the browser's module, in a browser: header values, event streams, ids."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map
from playwright.async_api import BrowserContext

from browser.conftest import Tab
from browser.peer import peering


@pytest.fixture(scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Tab]:
    async with peering() as peer:
        tab = await Tab(await context.new_page()).open(f"{peer.origin}/page")
        yield tab
        await tab.page.close()


TEXTS = [
    "plain",
    "",
    " edge",
    "edge ",
    "grüße",
    "a\nb",
    "\x00",
    "=?base64?eA==?=",
    "=?base64?",
    "日本 🚀",
    "~!#",
    "\x7f",
]


async def test_header_values_are_those_of_the_official_sdk(page: Tab) -> None:
    made = await page.run(
        "async (all) => { const m = await import('/milepost/wire.js'); return all.map(m.headerValue); }", TEXTS
    )
    assert made == [encode_header_value(text) for text in TEXTS]


async def test_headers_for_parameters_are_those_of_the_official_sdk(page: Tab) -> None:
    region = {"type": "string", "x-mcp-header": "Region"}
    inner = {"type": "object", "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry"}}}
    number = {"type": "integer", "x-mcp-header": "Count"}
    schema = {
        "type": "object",
        "properties": {"region": region, "how": inner, "n": number, "other": {"type": "string"}},
    }
    for arguments in [{"region": "München", "how": {"dry": True}, "n": 3, "other": "x"}, {"n": None}, {"how": 5}, {}]:
        made = await page.run(
            "async (both) => (await import('/milepost/wire.js')).paramHeaders(...both)", [schema, arguments]
        )
        assert made == mcp_param_headers(x_mcp_header_map(schema), arguments)


STREAM = (
    ': hello\r\n\r\nid: s.0\nretry: 1500\ndata: \n\ndata: {"a":\ndata: "grüße 🚀"}\r\rid: s.2\r\nevent: message\r\n'
    'data:{"b":1}\r\n\r\nid\ndata: last\n\nretry: soon\n\nretry: 99999999999999\n\nid: a\0b\ndata: x\n\ndata: cut off'
)
EXPECTED = [
    {"id": "s.0", "data": "", "retry": 1500},
    {"data": '{"a":\n"grüße 🚀"}'},
    {"id": "s.2", "data": '{"b":1}'},
    {"id": "", "data": "last"},
    {"retry": 300_000},
    {"data": "x"},
]
READ = """async ([hex, cuts]) => {
    const { SseParser } = await import("/milepost/wire.js");
    const bytes = Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
    return cuts.map(([first, size]) => {
        const parser = new SseParser(10000), decoder = new TextDecoder(), found = [];
        for (let from = 0, to = first; from < bytes.length; from = to, to += size)
            found.push(...parser.feed(decoder.decode(bytes.subarray(from, to), { stream: true })));
        return JSON.stringify(found.map(({ id, data, retry }) => ({ id, data, retry })));
    });
}"""


async def test_an_event_stream_reads_the_same_wherever_it_is_cut(page: Tab) -> None:
    data = STREAM.encode()
    cuts = [(len(data), 1), (1, 1), (2, 2), (3, 3), *((at, len(data)) for at in range(1, len(data)))]
    made = await page.run(READ, [data.hex(), cuts])
    assert json.loads(made[0]) == EXPECTED
    assert set(made) == {made[0]}


async def test_an_event_over_the_limit_is_refused_line_by_line_and_within_one_line(page: Tab) -> None:
    script = """async (pieces) => {
        const { SseParser } = await import("/milepost/wire.js");
        const parser = new SseParser(1000);
        try { for (let n = 0; n < 100; n++) parser.feed(pieces); } catch (error) { return error.name; }
    }"""
    assert await page.run(script, "data: " + "x" * 40 + "\n") == "BadPeer"
    assert await page.run(script, "y" * 40) == "BadPeer"
    assert await page.run(script, "data: " + "x" * 40 + "\n\n") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3000), ("0", 0), ("", 0), (None, 0), ("soon", 0), ("-5", 0), ("99999999", 300_000), ("1.5", 0)],
)
async def test_retry_after_is_read_as_seconds_within_bounds(page: Tab, value: Any, expected: int) -> None:
    assert await page.run("async (v) => (await import('/milepost/wire.js')).retryAfter(v)", value) == expected


async def test_retry_after_is_read_as_a_date(page: Tab) -> None:
    script = """async () => (await import('/milepost/wire.js')).retryAfter(
        'Wed, 21 Oct 2026 07:28:05 GMT', Date.parse('Wed, 21 Oct 2026 07:28:00 GMT'))"""
    assert await page.run(script) == 5000


async def test_ids_that_no_header_may_hold_are_refused(page: Tab) -> None:
    script = "async (all) => { const m = await import('/milepost/wire.js'); return all.map(m.cleanId); }"
    ids = ["abc-1.2", "a b", "a\r\nx: y", "ü", "", "x" * 1025, 5, None]
    assert await page.run(script, ids) == ["abc-1.2", *[None] * 7]
