"""Memory: what tensors (`storage`), whole models (`model`) and training (`training`) take under each scheme."""
