"""Labelled data as people keep it: PASCAL VOC's and COCO's layouts, and masks in folders."""
