"""Sends numbered records to a unix socket at a steady rate, and measures every send.

`unix_sender.py PATH RATE SECONDS`
Prints JSON: records sent, the rate that was reached, and in milliseconds the longest time that a send had to wait
for room in the socket, and the longest send in all.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

SLOT_S = 0.001


def main(path: str, rate: int, seconds: float) -> None:
    """Send as much as is due in every millisecond."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = (
        '{"timestamp":"' + stamp + '","tool":"file_read","params":{"path":"/app/data/report-%d.csv"},'
        '"status":"success","session_id":"s%d","key_id":"key_0001"}\n'
    )
    sent, waits, longest_wait, longest_send = 0, 0, 0.0, 0.0
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        due = int((now - began) * rate) - sent
        for _ in range(due):
            data = (record % (sent, sent % 5_000)).encode()
            before = time.perf_counter()
            waited = 0.0
            while data:
                try:
                    data = data[connection.send(data, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    full = time.perf_counter()
                    writable.poll()
                    waited += time.perf_counter() - full
            longest_send = max(longest_send, time.perf_counter() - before)
            waits += waited > 0
            longest_wait = max(longest_wait, waited)
            sent += 1
        time.sleep(SLOT_S)
    took = time.perf_counter() - began
    connection.close()
    print(
        json.dumps(
            {
                "sent": sent,
                "rate": round(sent / took),
                "waits": waits,
                "longest_wait_ms": round(longest_wait * 1_000, 2),
                "longest_send_ms": round(longest_send * 1_000, 2),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
