"""SavedModels run by TensorFlow, on CPUs, GPUs and TPUs."""
