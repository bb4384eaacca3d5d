"""Reads roadlens without roadlens, in 21 lines of pyzmq, msgpack and OpenCV: python subscribe.py tcp://127.0.0.1:5555"""

import sys

import cv2
import msgpack
import numpy as np
import zmq

socket = zmq.Context().socket(zmq.SUB)  # zmq.PULL, and no subscription, for a publisher that is `push`
socket.set_hwm(16)
socket.setsockopt(zmq.SUBSCRIBE, b"roadlens/v1/")
socket.connect(sys.argv[1])
expected, kind = {}, None
while kind != "end":
    topic, header, *payload = socket.recv_multipart()
    message = msgpack.unpackb(header)
    stream, sequence, kind = message["stream"], message["sequence"], message["kind"]
    if kind in ("analysis", "end"):  # states and signs of life are numbered apart
        missed, expected[stream] = sequence - expected.get(stream, sequence), sequence + 1
        print(topic.decode(), sequence, f"missed {missed}", *[box["label"] for box in message.get("boxes", [])])
    if payload:
        mask = cv2.imdecode(np.frombuffer(payload[0], np.uint8), cv2.IMREAD_COLOR)  # the classes' colours, BGR
        road = next(label["color"] for label in message["mask"]["labels"] if label["name"] == "road")
        print(f"  road {(mask == road[::-1]).all(axis=2).mean():.4f}")
