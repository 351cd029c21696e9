"""Kompute as a second engine: ``device="kompute"``.

It runs the same plans as the default engine, with the kernels' storage-buffer variants, through the
package ``kp`` (0.9). Only this package imports ``kp``, and only when such a device is asked for.

    loader       imports kp and proves that numbers come through it unharmed
    submissions  which dispatches may go to the device together; pure data
    tensors      makes kp tensors, once the driver has said that there is room
    binding      storages and dispatches in kp's terms
    device       opening, constants, limits
    executable   a plan, recorded; run
"""
