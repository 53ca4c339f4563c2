"""fedmosaic from Python: run an experiment, use a trained model. Imports the other packages of the project; none of
them imports this package.

Example::

    import fedmosaic

    run = fedmosaic.run("configs/digits-mini-fedcmi.yaml", engine="inprocess")
    model = fedmosaic.load_model(run)
    (prediction,) = model.predict([{"image": "7.png", "audio": "7.wav"}])
    print(prediction.label, prediction.probabilities)
"""

from common.trained.predictor import Prediction, Predictor, load_model
from fedmosaic.running import run

__all__ = ["Prediction", "Predictor", "load_model", "run"]
