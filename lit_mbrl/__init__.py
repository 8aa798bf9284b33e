"""Model-based reinforcement learning on PyTorch Lightning."""
