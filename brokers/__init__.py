"""Ways to a broker: the adapters of the port `crowd.ports.Broker`.

Layout:
    mqtt.py           MQTT 5
    mqtt_link.py      its connection, by aiomqtt and paho
    memory.py         a broker inside this process
    throttled.py      any broker, as slow as a device's radio
    topics.py         between addresses and MQTT topics
    endpoint.py       where an MQTT broker is, and why it cannot be reached
    accounting.py     the bytes of a message on a link
    echo.py           whether a device hears what it says itself
    session_state.py  what becomes of calls when a connection goes
    in_process.py     what the brokers inside this process have in common
    simulated/        a whole network under virtual time, and all that can go wrong with it
    py.typed          says to type checkers that the annotations count
"""
