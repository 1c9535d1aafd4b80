"""Looking at a model that is trained, without leaving a trace: alignment, the doctor, what a step keeps."""
