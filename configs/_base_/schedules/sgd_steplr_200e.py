# A tenth at epochs 120 and 160; the learning rate is for 256 images a step.
_base_ = "./sgd_coslr_200e.py"

param_scheduler = dict(_delete_=True, type="MultiStepLR", milestones=[120, 160], gamma=0.1)
