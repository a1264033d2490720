"""Policies in real time: how long an answer takes, and what runs inside a control loop."""
