"""Training-time blocks, recognised by their structure and attribute names, and their algebra.

* :mod:`.affine_map`: convolutions as data, and the rules by which they add and compose.
* :mod:`.branches`: RepVGG, ACNet and diverse-branch blocks to one convolution.
* :mod:`.call_order`: which module's output is which module's input, seen and not guessed.
* :mod:`.chains`: batch norm and implicit layers folded into the convolution beside them.
* :mod:`.deformable_forms`: the deformable convolutions in use, to one form that exports.
* :mod:`.proof`: two modules compared on random numbers.

None of them imports the packages these blocks come from.
"""
