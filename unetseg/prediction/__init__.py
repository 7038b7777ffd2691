"""A trained model at work.

Read in this order:

- ``model_file`` is the file of a model.
- ``run_folder`` is the folder of a run.
- ``model`` makes one file or an ensemble ready for images.
- ``segmenter`` covers an image of any size, by blended windows or seamless tiles.
- ``jobs`` says which image goes to which files, and which files are there already.
- ``outputs`` writes the files of one image.
- ``session`` predicts one image after the other.
- ``summary`` writes the table of the predictions.
- ``calibration`` and ``likeness`` say how far a model can be trusted.
- ``suggestions`` ranks the images to label next.
- ``onnx_export`` writes a model for programs without torch.
"""
