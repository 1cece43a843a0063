# A constant rate, for the images a step that a recipe says; Adam's is not scaled with their number.
optim_wrapper = dict(
    type="PrecisionOptimWrapper",
    constructor="TrainableParameters",
    optimizer=dict(type="Adam", lr=2e-4),
)
train_cfg = dict(type="PretrainLoop", max_epochs=200)
