"""ZeroMQ → MQTT, topic by topic: pip install pyzmq paho-mqtt; python mqtt.py tcp://127.0.0.1:5555 broker:1883"""

import sys

import paho.mqtt.client as mqtt
import zmq

host, _, port = sys.argv[2].partition(":")
broker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
broker.reconnect_delay_set(1, 5)
broker.connect_async(host, int(port or 1883))
broker.loop_start()  # connects, and again after a loss; what comes meanwhile is left out
socket = zmq.Context().socket(zmq.SUB)
socket.set_hwm(16)
socket.setsockopt(zmq.SUBSCRIBE, b"roadlens/v1/")
socket.connect(sys.argv[1])
while True:
    topic, header, *payload = socket.recv_multipart()
    name = topic.decode()
    # The state comes with every heartbeat. Retained, it is there for who comes late, and after a restart of the broker.
    broker.publish(name, header, retain=name.endswith("/status"))
    if payload:
        broker.publish(f"{name}/payload", payload[0])
