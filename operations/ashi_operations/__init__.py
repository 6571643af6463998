"""For those who run a deployment: how it is (`ashi status`), and whether all is as it must be (`ashi doctor`).

Both ask Kafka, and the doctor the store; no process of Ashi is disturbed, or needs to answer. What is asked is apart
from what is made of it: the judging is pure, by facts that are handed in.
"""
