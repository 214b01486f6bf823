"""The fine-tuning program: settings, data, model, training, sweeps."""
