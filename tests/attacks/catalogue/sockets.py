"""Sockets of every family, and misuse of the existing ones."""

import array
import os
import socket

from catalogue.attack import Target, attack, call


@attack
def connect_by_tcp(t: Target):
    return socket.create_connection(("127.0.0.1", t.tcp_port), timeout=5).getpeername()


@attack
def listen_by_tcp(t: Target):
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


@attack
def send_by_udp(t: Target):
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", t.udp_port))


@attack
def send_by_udp_over_ipv6(t: Target):
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", ("::1", t.udp_port))


@attack
def connect_to_a_socket_file(t: Target):
    one = socket.socket(socket.AF_UNIX)
    one.connect(f"{t.home}/control")
    return one.recv(100)


@attack
def connect_to_an_abstract_socket(t: Target):
    one = socket.socket(socket.AF_UNIX)
    one.connect("\0" + t.abstract)
    return one.recv(100)


@attack
def listen_on_an_abstract_socket(t: Target):
    one = socket.socket(socket.AF_UNIX)
    one.bind("\0llmasos-attack")
    one.listen()
    return one.getsockname()


@attack
def point_a_datagram_pair_elsewhere(t: Target):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"x", t.datagram)


@attack
def reconnect_a_datagram_pair(t: Target):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect(t.datagram)
    return one.send(b"x")


@attack
def make_a_packet_pair(t: Target):
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0].fileno()


@attack
def pass_a_descriptor(t: Target):
    one, two = socket.socketpair()
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])
    return two.recvmsg(1, 100)[1]


@attack
def open_a_raw_socket(t: Target):
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).fileno()


@attack
def ping(t: Target):
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).fileno()


@attack
def open_a_packet_socket(t: Target):
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno()


@attack
def ask_the_kernel_by_netlink(t: Target):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno()


@attack
def use_the_kernel_s_cryptography(t: Target):
    one = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    one.bind(("hash", "sha256"))
    return one.fileno()


@attack
def reach_the_hypervisor(t: Target):
    return socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).fileno()


@attack
def open_a_socket_by_a_raw_call(t: Target):
    return call("socket", 2, 1, 0)


@attack
def list_interfaces(t: Target):
    return socket.if_nameindex()


@attack
def set_options_of_a_pair(t: Target):
    one, _ = socket.socketpair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return "set"


@attack
def splice_between_pipes(t: Target):
    reader, writer = os.pipe()
    other_reader, other_writer = os.pipe()
    os.write(writer, b"x")
    return call("splice", reader, None, other_writer, None, 1, 0) and os.read(other_reader, 1)
