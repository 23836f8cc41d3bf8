"""kata: auto-graded coding katas on LoRA and parameter-efficient fine-tuning."""

__version__ = "0.2.0.dev0"
