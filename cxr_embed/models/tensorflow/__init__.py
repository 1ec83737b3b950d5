"""Runs SavedModels with TensorFlow on CPUs, GPUs and TPUs."""
