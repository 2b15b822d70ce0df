import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hepipe.stains.deconvolution import Separator, separate
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix

amounts_3 = arrays(np.float32, (5, 7, 3), elements=st.floats(0, 2, width=32))


@given(amounts_3, st.sampled_from([EOSIN, DAB]))
@settings(max_examples=40, deadline=None)
def test_separating_a_mixture_returns_its_amounts(amounts, second):
    matrix = stain_matrix(HAEMATOXYLIN, second)
    od = amounts @ matrix.astype(np.float32)
    np.testing.assert_allclose(separate(od, matrix), amounts, atol=1e-4)


@given(arrays(np.float64, (6, 6, 2), elements=st.floats(0, 0.7)))
@settings(max_examples=40, deadline=None)
def test_a_rendered_mixture_is_separated_up_to_8_bit_rounding(amounts):
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    rgb = np.rint(255 * 10 ** -(amounts @ matrix[:2])).astype(np.uint8)
    # At OD 1.4 a grey value is 10: half a step is 0.022 OD, times the norm of the inverse.
    np.testing.assert_allclose(np.moveaxis(Separator(matrix)(rgb), 0, -1), amounts, atol=0.06)
