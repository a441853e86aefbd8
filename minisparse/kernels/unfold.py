"""Unfold and fold: the patches a convolution sees as rows, and the transposed map.

Images are channels-last. Column order of a patch is (ky, kx, channel), channel fastest.
`window` arrays are int64 [kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w].
"""

from minisparse.kernels.jit import kernel


@kernel
def unfold(x, window, out):
    """out (n, oh, ow, kh*kw*c) from x (n, h, w, c); places outside the image read 0."""
    kh, kw, sh, sw, ph, pw, dh, dw = window
    n, h, w, c = x.shape
    oh, ow = out.shape[1], out.shape[2]
    for s in range(n):
        for i in range(oh):
            for j in range(ow):
                at = 0
                for a in range(kh):
                    y = i * sh - ph + a * dh
                    for b in range(kw):
                        z = j * sw - pw + b * dw
                        if 0 <= y < h and 0 <= z < w:
                            for k in range(c):
                                out[s, i, j, at + k] = x[s, y, z, k]
                        else:
                            for k in range(c):
                                out[s, i, j, at + k] = 0
                        at += c


@kernel
def fold(rows, window, out):
    """out (n, h, w, c) = sum over patches of rows (n, oh, ow, kh*kw*c): the transpose of unfold."""
    kh, kw, sh, sw, ph, pw, dh, dw = window
    n, h, w, c = out.shape
    oh, ow = rows.shape[1], rows.shape[2]
    out[...] = 0
    for s in range(n):
        for i in range(oh):
            for j in range(ow):
                at = 0
                for a in range(kh):
                    y = i * sh - ph + a * dh
                    for b in range(kw):
                        z = j * sw - pw + b * dw
                        if 0 <= y < h and 0 <= z < w:
                            for k in range(c):
                                out[s, y, z, k] += rows[s, i, j, at + k]
                        at += c


@kernel
def max_pool(x, window, out, where):
    """Largest value of each window, and the flat place h*W + w it came from (the first, at ties).

    x (n, h, w, c); out, where (n, oh, ow, c). Comparison is by the real part; NaN wins over numbers.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = window
    n, h, w, c = x.shape
    oh, ow = out.shape[1], out.shape[2]
    for s in range(n):
        for i in range(oh):
            for j in range(ow):
                first = True
                best, place = out[s, i, j], where[s, i, j]
                for a in range(kh):
                    y = i * sh - ph + a * dh
                    if y < 0 or y >= h:
                        continue
                    for b in range(kw):
                        z = j * sw - pw + b * dw
                        if z < 0 or z >= w:
                            continue
                        value, at = x[s, y, z], y * w + z
                        if first:
                            first = False
                            for k in range(c):
                                best[k] = value[k]
                                place[k] = at
                        else:  # chosen without a branch: which one is larger cannot be foreseen
                            for k in range(c):
                                v, u = value[k], best[k]
                                larger = (v.real > u.real) | ((v != v) & (u == u))
                                best[k] = v if larger else u
                                place[k] = at if larger else place[k]


@kernel
def scatter_pool(dy, where, out):
    """out (n, h*w, c) += dy (n, p, c) at the places max_pool chose; out starts at 0."""
    n, p, c = dy.shape
    out[...] = 0
    for s in range(n):
        for i in range(p):
            for k in range(c):
                out[s, where[s, i, k], k] += dy[s, i, k]
