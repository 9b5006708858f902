from rampflow.calibration import Calibration as Calibration
from rampflow.calibration import calibrate as calibrate

SOFTWARE_NAME: str
__version__: str
