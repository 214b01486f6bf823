"""The pretraining program: settings, plan, training, summary."""
