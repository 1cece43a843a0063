# Any method of two views takes this loss; this is SimCLR with it.
_base_ = "./simclr_r18_1xb64-coslr-100e_folder.py"

model = dict(loss=dict(_delete_=True, type="BatchHardTriplet", margin=0.3))
