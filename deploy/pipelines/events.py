#!/usr/bin/env python3
"""Prints the events of a job as they happen, as a browser's EventSource takes them: after a broken connection from the last id on.

Needs httpx. Where the service asks for a key, set BAYESPRESS_API_KEY.

    export BAYESPRESS_URL=http://127.0.0.1:8000
    python events.py JOB

One line of JSON per event. Exits with 0 when the job has succeeded, 3 where a budget or a gate was not met, 1 for everything else.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import httpx

EXIT_CODES = {"succeeded": 0, "failed_gate": 3}
# The service sends a comment every 15 s; where nothing comes for so long, the connection is dead.
SILENCE_S = 45
RECONNECT_S = 1.0
GIVE_UP_AFTER = 60

Event = dict[str, str]


def read_events(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream: fields until an empty line; a line that begins with a colon is a comment."""
    event: Event = {}
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif name == "data" and "data" in event:
            event["data"] += "\n" + value
        elif name:
            event[name] = value


def follow(client: httpx.Client, path: str) -> Iterator[Event]:
    """The events of a job, each once and in order, over as many connections as it takes."""
    headers = {"Accept": "text/event-stream"}
    failures = 0
    while failures < GIVE_UP_AFTER:
        try:
            with client.stream("GET", path, headers=headers) as response:
                if response.status_code == 204:
                    return
                if response.status_code < 500:
                    response.raise_for_status()
                for event in read_events(response.iter_lines()) if response.is_success else ():
                    failures = 0
                    if "id" in event:
                        headers["Last-Event-ID"] = event["id"]
                    yield event
                    if event.get("event") == "end":
                        return
        except httpx.TransportError as error:
            print(f"{error!r}; again after event {headers.get('Last-Event-ID', 'none')}", file=sys.stderr)
        failures += 1
        time.sleep(RECONNECT_S)


def main(job_id: str) -> int:
    key = os.environ.get("BAYESPRESS_API_KEY")
    client = httpx.Client(
        base_url=os.environ.get("BAYESPRESS_URL", "http://127.0.0.1:8000"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(30, read=SILENCE_S),
    )
    with client:
        for event in follow(client, f"/v1/jobs/{job_id}/events"):
            print(event["data"], flush=True)
            if event.get("event") == "end":
                return EXIT_CODES.get(json.loads(event["data"])["status"], 1)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
