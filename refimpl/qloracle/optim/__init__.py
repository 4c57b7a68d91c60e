"""Optimizers: AdamW with 32-bit (`adamw`) and 8-bit states (`adamw8bit`), paged states, clipping, accumulation."""
