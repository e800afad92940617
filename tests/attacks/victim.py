"""A stand-in for the host: a process with a secret, a descriptor and sockets. It prints where they are."""

import ctypes
import json
import os
import signal
import socket
import sys
import threading

SECRET = b"the host's secret"


def serve(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        connection.sendall(b"welcome")
        connection.close()


if __name__ == "__main__":
    home = sys.argv[1]
    signal.signal(signal.SIGUSR1, lambda *_: None)
    memory = ctypes.create_string_buffer(SECRET)
    descriptor = os.open(f"{home}/secret", os.O_RDONLY)
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    abstract = f"llmasos-victim-{os.getpid()}"
    named = socket.socket(socket.AF_UNIX)
    named.bind("\0" + abstract)
    named.listen()
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram.bind(f"{home}/datagram")
    for server in (tcp, named):
        threading.Thread(target=serve, args=(server,), daemon=True).start()
    print(
        json.dumps(
            {
                "victim": os.getpid(),
                "victim_address": ctypes.addressof(memory),
                "victim_descriptor": descriptor,
                "tcp_port": tcp.getsockname()[1],
                "udp_port": udp.getsockname()[1],
                "abstract": abstract,
                "datagram": f"{home}/datagram",
            }
        ),
        flush=True,
    )
    while sys.stdin.readline():
        print(memory.value.decode(), flush=True)
