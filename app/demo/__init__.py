"""The embedded demo: mock brokers in this process, generated or real events, a verdict."""

from app.demo.show import run_demo

__all__ = ["run_demo"]
