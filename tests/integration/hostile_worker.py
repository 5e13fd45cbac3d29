#!/usr/bin/python3
"""In the place of sublet-worker: a template whose workers say to their agent what no honest one would. What they are
answered goes, a line of JSON each, to the file answers in the folder that this lies in."""

import array
import json
import os
import select
import socket
import struct
import sys

# executor/local/messages.hpp
FORKED, READY, ATTACH, SERVING = 2, 3, 4, 6
TRANSPORT_BYTES, ADDRESS_BYTES, TRANSPORTS_MAX = 20, 108, 4
GOOD = b"127.0.0.1:4711"
LEASE_MAX = (1 << 53) - 1


def ready(tcp, shm=b"", other=b""):
    endpoints = ((b"tcp", tcp), (b"shm", shm), (b"t" * TRANSPORT_BYTES, other), (b"", b""))
    assert len(endpoints) == TRANSPORTS_MAX
    return struct.pack("<I", READY) + b"".join(
        transport.ljust(TRANSPORT_BYTES, b"\0") + address.ljust(ADDRESS_BYTES, b"\0") for transport, address in endpoints)


def attach(worker, lease):
    token = struct.pack("<QQIIIHH", lease, 1 << 60, worker, 1, 1, 1, 0)
    return struct.pack("<II", ATTACH, 0) + token


def answer_to(agent, packet):
    """What the agent says to a packet: its refusal and text."""
    agent.setblocking(True)
    agent.settimeout(20)
    agent.send(packet)
    answer = agent.recv(2048)
    kind, refused = struct.unpack_from("<IH", answer)
    return kind, refused, answer[16:272].split(b"\0")[0].decode()


def note(worker, what, answer):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "answers")
    with open(path, "a", encoding="ascii") as file:
        file.write(json.dumps([worker, what, *answer]) + "\n")


def live(worker, agent):
    agent.send(struct.pack("<IIi", FORKED, worker, os.getpid()))
    if worker == 1:
        agent.send(ready(b"two words", b"/no\nline"))
    elif worker == 2:
        agent.send(ready(GOOD, b"\xff\xfe", GOOD))
    elif worker == 3:
        agent.send(ready(b"x" * ADDRESS_BYTES))  # No end in sight.
    elif worker == 4:
        agent.send(struct.pack("<I", SERVING).ljust(4 + TRANSPORT_BYTES, b"\0"))
        agent.send(attach(worker, 7))  # It is not ready.
        agent.send(ready(GOOD)[:-1])
        agent.send(ready(GOOD) + b"x")
        agent.send(b"\xff" * 2000)
        agent.send(ready(GOOD))
        agent.send(ready(b"127.0.0.1:1"))
        agent.send(struct.pack("<IIi", FORKED, worker, 1))
        for what, packet in (("lease 0", attach(worker, 0)), ("lease too great", attach(worker, LEASE_MAX + 1)),
                             ("another's number", attach(worker + 1, 7))):
            note(worker, what, answer_to(agent, packet))
    else:
        agent.send(ready(GOOD))
    agent.setblocking(True)
    agent.settimeout(None)
    agent.recv(2048)  # Until it is told to end, or the agent has gone.


def main():
    agent = socket.socket(fileno=int(sys.argv[2]))
    while True:
        select.select([agent], [], [])
        packet, ancillary, _, _ = agent.recvmsg(2048, 1024)
        if not packet:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        _, worker = struct.unpack_from("<II", packet)
        between = os.fork()
        if between == 0:
            if os.fork() != 0:
                os._exit(0)
            agent.close()
            live(worker, socket.socket(fileno=descriptors[0]))
            os._exit(0)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    main()
