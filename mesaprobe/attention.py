"""Public face of attention analysis: `from mesaprobe.attention import attention_patterns`."""

from mesaprobe.instruments.attention import attention_patterns

__all__ = ["attention_patterns"]
