"""Networks whose mechanism is known by construction or by certificate (method.md section 6)."""
