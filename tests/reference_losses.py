"""Float64 reference of the losses in LOSSES.md, written from that text alone (NumPy; slow on purpose, term by term).

Contrastive losses: f(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings) -> float. Without references
every other row of the batch is a reference. With references they replace the in-batch ones and nothing is excluded,
unless `own_position` gives, per anchor, the index of itself among the references (-1: not there): queues and shards.
Labels are (B, L) in {0, 1}, or (B,) class indices. For these losses also: `weights`, `gradient`, `reg_gradient_scores`.
Losses on logits: f(logits, labels, **settings) -> float, NaN in labels = unknown.
"""
from dataclasses import dataclass

import numpy as np

INF = np.inf


# ---------------------------------------------------------------------------------------------------- numerical helpers
def normalise(x):
    """z_i = x_i / |x_i| and the lengths |x_i|; a row of length zero gives the zero vector. Safe for huge/tiny rows."""
    x = np.asarray(x, dtype=np.float64)
    peak = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
    scaled = np.divide(x, peak, out=np.zeros_like(x), where=peak > 0)
    length = np.sqrt((scaled ** 2).sum(axis=1, keepdims=True))
    z = np.divide(scaled, length, out=np.zeros_like(x), where=length > 0)
    return z, (peak * length)[:, 0]


def log_sum_exp(values):
    """log sum_k exp(values_k) of a vector; -inf for an empty one or one of -inf only."""
    values = np.asarray(values, dtype=np.float64)
    top = values.max(initial=-INF)
    return top if top == -INF else top + np.log(np.exp(values - top).sum())


def log_sigmoid(x):
    """log sigmoid(x) = -log(1 + e^-x)."""
    return -np.logaddexp(0.0, -x)


def sigmoid(x):
    """1 / (1 + e^-x), small values to full relative precision."""
    return np.exp(log_sigmoid(x))


def softplus(x):
    """log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def numeric_gradient(f, x, step=1e-4):
    """Gradient of the scalar f at x by five-point central differences; the step is relative to the row's length.

    Not meaningful at a zero row of embeddings (the normalisation jumps there). Error about 1e-9 relative at step 1e-4.
    """
    x = np.array(x, dtype=np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        length = np.linalg.norm(x[index[:-1]]) if x.ndim > 1 else abs(x[index])
        h = step * (length if length > 0 else 1.0)
        values = []
        for shift in (2, 1, -1, -2):
            moved = x.copy()
            moved[index] += shift * h
            values.append(f(moved))
        gradient[index] = (8 * (values[1] - values[2]) - (values[0] - values[3])) / (12 * h)
    return gradient


# ------------------------------------------------------------------------------------------ anchors, references, labels
def label_sets(labels, n_labels=None):
    """Labels as a boolean (B, L) array; (B,) class indices become one-hot; NaN is refused as the spec says."""
    labels = np.asarray(labels)
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError("labels contain NaN (unknown): a contrastive loss takes none; choose unknown='absent'")
    if labels.ndim == 1:
        index = labels.astype(np.int64)
        return np.arange(n_labels if n_labels is not None else index.max(initial=-1) + 1) == index[:, None]
    return labels != 0


@dataclass
class Problem:
    """All that the value -(1/N) sum_i sum_j row_scale_i W_ij log sigma_ij (or SINCERE's form) needs."""
    anchors: np.ndarray  # raw, (n_anchors, D): the batch, then the prototypes where they are anchors
    references: np.ndarray  # raw, (n_references, D): the batch or the given references, then the prototypes
    anchor_sets: np.ndarray  # bool (n_anchors, L)
    reference_sets: np.ndarray  # bool (n_references, L)
    allowed: np.ndarray  # bool: False where reference j is anchor i itself
    n_batch: int  # leading anchors that are the batch
    n_instances: int  # leading references that are instances
    own_references: bool  # the instance references were given (are not the batch)
    temperature: float = 0.1
    weights: np.ndarray = None
    row_scale: np.ndarray = None  # a factor per anchor (ABALONE's 1/|y_i|), else ones
    divisor: float = 0.0  # N
    log_beta: np.ndarray = None  # per reference: log of its factor in the denominator, else zeros
    gate: bool = False  # REG's stop-gradient term
    frozen_gate: np.ndarray = None  # fixed values for that term
    sincere: bool = False


def _problem(embeddings, labels, ref_embeddings=None, ref_labels=None, prototypes=None, prototype_anchors=False,
             instances=True, own_position=None, temperature=0.1):
    """Collect anchors and references: (z_1..z_B [, c_1..c_L]) against (the others or the references [, c_1..c_L])."""
    x = np.asarray(embeddings, dtype=np.float64)
    given = instances and ref_embeddings is not None
    n_labels = None if prototypes is None else len(prototypes)
    if n_labels is None and np.ndim(labels) == 1:
        parts = [np.asarray(labels)] + ([np.asarray(ref_labels)] if given else [])
        n_labels = int(np.concatenate(parts).max(initial=-1)) + 1
    sets = label_sets(labels, n_labels)
    if given:
        r, r_sets = np.asarray(ref_embeddings, dtype=np.float64), label_sets(ref_labels, n_labels)
        allowed = np.ones((len(x), len(r)), dtype=bool)
        for i, position in enumerate([] if own_position is None else own_position):
            if position >= 0:
                allowed[i, position] = False
    elif instances:
        r, r_sets, allowed = x, sets, ~np.eye(len(x), dtype=bool)
    else:
        r, r_sets, allowed = x[:0], sets[:0], np.ones((len(x), 0), dtype=bool)
    n_instances, anchors, anchor_sets = len(r), x, sets
    if prototypes is not None:
        p = np.asarray(prototypes, dtype=np.float64)
        identity = np.eye(len(p), dtype=bool)
        if prototype_anchors:  # prototype l sees every instance reference and every prototype but itself
            anchors, anchor_sets = np.concatenate([x, p]), np.concatenate([sets, identity])
            allowed = np.concatenate([allowed, np.ones((len(p), n_instances), dtype=bool)])
        to_prototypes = np.ones((len(anchors), len(p)), dtype=bool)
        if prototype_anchors:
            to_prototypes[len(x):] = ~identity
        allowed = np.concatenate([allowed, to_prototypes], axis=1)
        r, r_sets = np.concatenate([r, p]), np.concatenate([r_sets, identity])
    return Problem(anchors, r, anchor_sets, r_sets, allowed, len(x), n_instances, given, temperature,
                   row_scale=np.ones(len(anchors)), log_beta=np.zeros(len(r)))


def _scores(problem):
    """s_ij, the cosine similarity of anchor i and reference j."""
    return normalise(problem.anchors)[0] @ normalise(problem.references)[0].T


def _log_shares(scores, problem, i):
    """log sigma_ij of row i: s_ij/tau - log sum_{k allowed} beta_k e^{s_ik/tau} (no beta_j in the numerator)."""
    over_tau = scores[i] / problem.temperature
    allowed = problem.allowed[i]
    return over_tau - log_sum_exp((over_tau + problem.log_beta)[allowed])


def _value(problem):
    """The core: -(1/N) sum_i sum_{j != i} W_ij log sigma_ij, with REG's term if gated; exactly 0 without positives."""
    weights = problem.weights
    if not (weights > 0).any():
        return 0.0
    if problem.sincere:
        return _sincere_value(problem)
    scores, total = _scores(problem), 0.0
    for i in range(len(weights)):
        positive = weights[i] > 0
        if not positive.any():
            continue
        log_share = _log_shares(scores, problem, i)
        row = (weights[i] * log_share)[positive].sum()
        if problem.gate:
            row += (_gate_row(problem, i, log_share) * scores[i] / problem.temperature)[positive].sum()
        total -= problem.row_scale[i] * row
    return float(total / problem.divisor)


def _gate_row(problem, i, log_share):
    """1[w_ij > 0] max(omega sigma_ij - w_ij, 0), omega = sum_k w_ik; or the frozen values."""
    if problem.frozen_gate is not None:
        return problem.frozen_gate[i]
    w = problem.weights[i]
    share = np.where(problem.allowed[i], np.exp(log_share + problem.log_beta), 0.0)
    return np.where(w > 0, np.maximum(w.sum() * share - w, 0.0), 0.0)


def _score_gradient(problem):
    """dL/ds_ij with s_ij and s_ji as separate variables: ((sum_k W_ik) sigma_ij - W_ij)/(tau N), gated for REG."""
    weights = problem.weights
    gradient = np.zeros_like(weights)
    if not (weights > 0).any():
        return gradient
    if problem.sincere:
        return _sincere_score_gradient(problem)
    scores = _scores(problem)
    for i in range(len(weights)):
        w = weights[i]
        if not (w > 0).any():
            continue
        log_share = _log_shares(scores, problem, i)
        share = np.where(problem.allowed[i], np.exp(log_share + problem.log_beta), 0.0)
        row = w.sum() * share - w
        if problem.gate:  # positives: min(omega sigma - w, 0); negatives: omega sigma
            row = np.where(w > 0, np.minimum(row, 0.0), row)
        gradient[i] = problem.row_scale[i] * row / (problem.temperature * problem.divisor)
    return gradient


def _sincere_value(problem):
    """SINCERE: (1/N+) sum_i sum_p W_ip [ -s_ip/tau + log(e^{s_ip/tau} + sum_{n not in P(i)} e^{s_in/tau}) ]."""
    scores, total = _scores(problem), 0.0
    for i, w in enumerate(problem.weights):
        over_tau = scores[i] / problem.temperature
        log_z = log_sum_exp(over_tau[problem.allowed[i] & ~(w > 0)])
        for p in np.flatnonzero(w > 0):
            total += w[p] * softplus(log_z - over_tau[p])  # -s + log(e^s + Z) = log(1 + Z e^-s)
    return float(total / problem.divisor)


def _sincere_score_gradient(problem):
    """Positives: -W_ip (1 - pi_ip)/(tau N+); negatives: sum_p W_ip e^{s_in/tau}/(e^{s_ip/tau} + Z-_i)/(tau N+)."""
    scores, gradient = _scores(problem), np.zeros_like(problem.weights)
    for i, w in enumerate(problem.weights):
        over_tau = scores[i] / problem.temperature
        negative = problem.allowed[i] & ~(w > 0)
        log_z = log_sum_exp(over_tau[negative])
        for p in np.flatnonzero(w > 0):
            log_denominator = np.logaddexp(over_tau[p], log_z)
            gradient[i, p] -= w[p] * sigmoid(log_z - over_tau[p])  # 1 - pi_ip = Z/(e^s + Z)
            gradient[i, negative] += w[p] * np.exp(over_tau[negative] - log_denominator)
    return gradient / (problem.temperature * problem.divisor)


def chain(problem, score_gradient):
    """Feature chain: ds_ij/dx_i = (z_j - s_ij z_i)/|x_i|, likewise for x_j. A row of length zero gets gradient 0."""
    (u, u_length), (v, v_length) = normalise(problem.anchors), normalise(problem.references)
    scores = u @ v.T
    by_anchor = score_gradient @ v - (score_gradient * scores).sum(axis=1)[:, None] * u
    by_reference = score_gradient.T @ u - (score_gradient * scores).sum(axis=0)[:, None] * v
    by_anchor = np.divide(by_anchor, u_length[:, None], out=np.zeros_like(u), where=u_length[:, None] > 0)
    by_reference = np.divide(by_reference, v_length[:, None], out=np.zeros_like(v), where=v_length[:, None] > 0)
    n, m = problem.n_batch, problem.n_instances
    result = {"scores": score_gradient, "embeddings": by_anchor[:n], "references": None, "prototypes": None}
    if problem.own_references:
        result["references"] = by_reference[:m]
    elif m:
        result["embeddings"] = by_anchor[:n] + by_reference[:m]
    if len(problem.references) > m:
        result["prototypes"] = by_reference[m:] + (by_anchor[n:] if len(by_anchor) > n else 0.0)
    return result


def _sizes(problem):
    """|y_i and y_j|, |y_i or y_j|, |y_i| as a column, |y_j| as a row; float64, exact."""
    a, b = problem.anchor_sets.astype(np.float64), problem.reference_sets.astype(np.float64)
    shared, size_a, size_b = a @ b.T, a.sum(axis=1)[:, None], b.sum(axis=1)[None, :]
    return shared, size_a + size_b - shared, size_a, size_b


def _ratio(numerator, denominator):
    """numerator/denominator, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)


def jaccard(problem):
    """J_ij = |y_i and y_j| / |y_i or y_j|, 0 where both are empty."""
    shared, union, _, _ = _sizes(problem)
    return _ratio(shared, union)


def _with_positive(weights):
    """N+, the number of anchors with sum_j W_ij > 0."""
    return float((weights.sum(axis=1) > 0).sum())


# --------------------------------------------------------------------------------------------------- contrastive losses
def _supcon_any(*data, gate=False, **settings):
    problem = _problem(*data, **settings)
    positive = (_sizes(problem)[0] > 0) & problem.allowed
    problem.weights = _ratio(positive, positive.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = _with_positive(problem.weights), gate
    return problem


def _supcon_all(*data, gate=False, **settings):
    problem = _problem(*data, **settings)
    shared, union, size, _ = _sizes(problem)
    positive = (shared == union) & (size > 0) & problem.allowed  # equal and not empty
    problem.weights = _ratio(positive, positive.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = _with_positive(problem.weights), gate
    return problem


def _base(*data, gate=False, **settings):
    problem = _problem(*data, **settings)
    overlap = np.where(problem.allowed, jaccard(problem), 0.0)
    problem.weights = _ratio(overlap, overlap.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = _with_positive(problem.weights), gate
    return problem


def _mulsupcon(*data, gate=False, **settings):
    problem = _problem(*data, **settings)
    weights = np.zeros(problem.allowed.shape)
    for i, own in enumerate(problem.anchor_sets):
        for label in np.flatnonzero(own):
            members = problem.reference_sets[:, label] & problem.allowed[i]  # P_l(i)
            if members.any():
                weights[i, members] += 1.0 / members.sum()
    problem.weights, problem.divisor, problem.gate = weights, float(problem.anchor_sets.sum()), gate
    return problem


def _simdis(*data, gate=False, **settings):
    problem = _problem(*data, **settings)
    shared, _, size, ref_size = _sizes(problem)
    positive = (shared > 0) & problem.allowed
    similarity, dissimilarity = _ratio(shared, size), 1.0 / (1.0 + (ref_size - shared))
    problem.weights = _ratio(positive * similarity * dissimilarity, positive.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = _with_positive(problem.weights), gate
    return problem


def _proto(*data, gate=False, **settings):
    problem = _problem(*data, instances=False, **settings)
    problem.weights = _ratio(problem.anchor_sets, problem.anchor_sets.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = float(problem.anchor_sets.any(axis=1).sum()), gate  # labelled instances
    return problem


def _abalone(*data, beta=0.1, gate=False, **settings):
    problem = _problem(*data, **settings)
    m = problem.n_instances
    shared, union, size, _ = _sizes(problem)
    own, others = problem.anchor_sets.astype(float), problem.reference_sets[:m].astype(float)
    weights = np.zeros(problem.allowed.shape)
    for i in range(problem.n_batch):
        m_i = np.where(problem.allowed[i, :m], _ratio(1.0, union[i, :m]), 0.0)
        d_i = 1.0 + m_i @ others  # D_il = 1 + sum_{j != i} y_jl m_ij
        weights[i, :m] = m_i * (others @ (own[i] / d_i))  # w_ij = m_ij sum_{l in both} 1/D_il
        weights[i, m:] = own[i] / d_i  # w^C_il = y_il/D_il
    problem.weights, problem.row_scale = weights, _ratio(1.0, size)[:, 0]
    problem.divisor, problem.gate = float(problem.anchor_sets.any(axis=1).sum()), gate  # labelled instances
    problem.log_beta[:m] = np.log(beta) if beta > 0 else -INF
    return problem


def _reg_weights(problem, alpha):
    """REG's w: r_ij = |a_i and a_j|/|a_j|, f_ij, D_il = sum_k f_ik a_il a_kl, w_ij = (1/|a_i|) sum_l f_ij/D_il."""
    a, b = problem.anchor_sets.astype(float), problem.reference_sets.astype(float)
    shared, _, size, ref_size = _sizes(problem)
    overlap = _ratio(shared, ref_size)
    weights = np.zeros(shared.shape)
    for i in range(len(a)):
        if size[i, 0] == 0:
            continue
        shares = (shared[i] > 0) & problem.allowed[i]
        if alpha < 0:
            f_i = (shares & (shared[i] == ref_size[0])).astype(float)
        else:
            f_i = np.where(shares, overlap[i] ** alpha, 0.0)
        d_i = (f_i @ b) * a[i]
        weights[i] = f_i * (b @ _ratio(a[i], d_i)) / size[i, 0]
    return weights


def _wreg(*data, alpha=0.0, gate=False, frozen_gate=None, **settings):
    problem = _problem(*data, prototype_anchors=True, **settings)
    problem.weights = _reg_weights(problem, alpha)
    problem.divisor, problem.gate, problem.frozen_gate = _with_positive(problem.weights), gate, frozen_gate
    return problem


def _reg(*data, **settings):
    return _wreg(*data, gate=True, **settings)


def _dense(problem, g, t):
    """W_ij = e^{g_ij/t} / sum_{k allowed} e^{g_ik/t} for labelled anchors; N = their number."""
    weights = np.zeros(g.shape)
    for i in range(len(g)):
        allowed = problem.allowed[i]
        if problem.anchor_sets[i].any() and allowed.any():
            weights[i, allowed] = np.exp(g[i, allowed] / t - log_sum_exp(g[i, allowed] / t))
    problem.weights, problem.divisor = weights, float(problem.anchor_sets.any(axis=1).sum())
    return problem


def _softjac(*data, t=0.04, gate=False, **settings):
    problem = _problem(*data, **settings)
    problem.gate = gate
    return _dense(problem, jaccard(problem), t)


def label_statistics(train_labels):
    """idf_l = ln((1+N)/(1+n_l)) + 1 and NPMI_lm = ln(p_lm/(p_l p_m))/(-ln p_lm) of the training label sets.

    Chosen here: -1 for labels that never meet; 1 on the diagonal, also for absent labels; 1 where p_lm = 1.
    """
    y = label_sets(train_labels).astype(float)
    n, counts, pairs = float(len(y)), y.sum(axis=0), y.T @ y
    idf = np.log((1.0 + n) / (1.0 + counts)) + 1.0
    npmi = np.full(pairs.shape, -1.0)
    for l, m in np.argwhere(pairs > 0):
        p = pairs[l, m] / n
        npmi[l, m] = 1.0 if p == 1.0 else np.log(p / (counts[l] / n * counts[m] / n)) / -np.log(p)
    np.fill_diagonal(npmi, 1.0)
    return idf, npmi


def label_similarity(npmi, label_embeddings=None, lam=None):
    """S_lm = ((1-lambda) cos(e_l, e_m) + lambda NPMI_lm + 1)/2 in [0, 1]; lambda 1 without embeddings, else 1/2."""
    lam = (1.0 if label_embeddings is None else 0.5) if lam is None else lam
    mixed = lam * np.asarray(npmi, dtype=np.float64)
    if lam < 1.0:
        e = normalise(label_embeddings)[0]
        mixed = mixed + (1.0 - lam) * (e @ e.T)
    return np.clip((mixed + 1.0) / 2.0, 0.0, 1.0)


def soft_precision(sets, others, similarity, idf):
    """P_ij = sum_{l in y_i} idf_l max_{m in y_j} S_lm / max(1, sum_{l in y_i} idf_l), 0 where y_j is empty."""
    result = np.zeros((len(sets), len(others)))
    for j in range(len(others)):
        if not others[j].any():
            continue
        best = similarity[:, others[j]].max(axis=1)
        for i in range(len(sets)):
            own = sets[i]
            result[i, j] = (idf[own] * best[own]).sum() / max(1.0, idf[own].sum())
    return result


def gma_scores(sets, others, similarity, idf):
    """g = 2PR/(P+R) clamped to [0, 1], 0 where both are 0; R_ij is P with the roles of i and j exchanged."""
    p, r = soft_precision(sets, others, similarity, idf), soft_precision(others, sets, similarity, idf).T
    return np.clip(_ratio(2.0 * p * r, p + r), 0.0, 1.0)


def _gma(*data, train_labels=None, idf=None, npmi=None, label_embeddings=None, lam=None, t=0.1, gate=False, **settings):
    problem = _problem(*data, **settings)
    if idf is None or npmi is None:
        counted = label_statistics(problem.anchor_sets if train_labels is None else train_labels)
        idf, npmi = counted[0] if idf is None else idf, counted[1] if npmi is None else npmi
    similarity = label_similarity(npmi, label_embeddings, lam)
    g = gma_scores(problem.anchor_sets, problem.reference_sets, similarity, np.asarray(idf, dtype=np.float64))
    problem.gate = gate
    return _dense(problem, g, t)


def _multisupcon(*data, threshold=0.3, gate=False, **settings):
    problem = _problem(*data, **settings)
    overlap = jaccard(problem)
    positive = (overlap > threshold) & (_sizes(problem)[0] > 0) & problem.allowed
    problem.weights = _ratio(overlap * positive, positive.sum(axis=1, keepdims=True))
    problem.divisor, problem.gate = _with_positive(problem.weights), gate
    return problem


def _sincere(*data, reg_weights=False, alpha=0.0, **settings):
    problem = _wreg(*data, alpha=alpha, **settings) if reg_weights else _supcon_any(*data, **settings)
    problem.sincere = True
    return problem


PROBLEMS = {
    "supcon_any": _supcon_any, "supcon_all": _supcon_all, "base": _base, "mulsupcon": _mulsupcon, "simdis": _simdis,
    "proto": _proto, "abalone": _abalone, "reg": _reg, "wreg": _wreg, "softjac": _softjac, "gma": _gma,
    "multisupcon": _multisupcon, "sincere": _sincere,
}


def supcon_any(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """SupCon, P(i) = {j != i: y_i.y_j > 0}: W_ij = 1[j in P(i)]/|P(i)|, N = N+."""
    return _value(_supcon_any(embeddings, labels, ref_embeddings, ref_labels, **settings))


def supcon_all(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """SupCon, P(i) = {j != i: y_i = y_j, not empty}: W_ij = 1[j in P(i)]/|P(i)|, N = N+."""
    return _value(_supcon_all(embeddings, labels, ref_embeddings, ref_labels, **settings))


def base(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """Jaccard SupCon: W_ij = J_ij / sum_{k != i} J_ik, N = N+."""
    return _value(_base(embeddings, labels, ref_embeddings, ref_labels, **settings))


def mulsupcon(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """MulSupCon in its in-batch form: W_ij = sum_{l in both} 1/|P_l(i)|, N = sum_i |y_i| over all anchors."""
    return _value(_mulsupcon(embeddings, labels, ref_embeddings, ref_labels, **settings))


def simdis(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """Similarity-dissimilarity: W_ij = |both|/|y_i| * 1/(1 + |y_j without y_i|) / |P(i)|, N = N+."""
    return _value(_simdis(embeddings, labels, ref_embeddings, ref_labels, **settings))


def proto(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, **settings):
    """PROTO: -(1/B) sum_i (1/|y_i|) sum_{l in y_i} log softmax_l(z_i.c/tau), B labelled; instance references unused."""
    return _value(_proto(embeddings, labels, None, None, prototypes=prototypes, **settings))


def abalone(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, beta=0.1, **settings):
    """ABALONE: -(1/B) sum_i (1/|y_i|) [sum_j w_ij (s_ij/tau - log Z_i) + sum_l w^C_il (z_i.c_l/tau - log Z_i)]."""
    settings = {"prototypes": prototypes, "beta": beta, **settings}
    return _value(_abalone(embeddings, labels, ref_embeddings, ref_labels, **settings))


def wreg(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, alpha=0.0, **settings):
    """WREG: -(1/N+) sum_i sum_{j != i} w_ij log sigma_ij, instances and prototypes as anchors and references."""
    return _value(_wreg(embeddings, labels, ref_embeddings, ref_labels, prototypes=prototypes, alpha=alpha, **settings))


def reg(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, alpha=0.0, **settings):
    """REG: -(1/N+) sum_i sum_{j != i} [w_ij log sigma_ij + 1[w_ij > 0] max(sigma_ij - w_ij, 0) s_ij/tau].

    `frozen_gate` (from `reg_gate`) keeps the stop-gradient's values fixed, so that differences give its gradient.
    """
    return _value(_reg(embeddings, labels, ref_embeddings, ref_labels, prototypes=prototypes, alpha=alpha, **settings))


def reg_gate(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, alpha=0.0, **settings):
    """1[w_ij > 0] max(omega sigma_ij - w_ij, 0) for all rows, as REG's value uses it."""
    problem = _reg(embeddings, labels, ref_embeddings, ref_labels, prototypes=prototypes, alpha=alpha, **settings)
    scores, result = _scores(problem), np.zeros_like(problem.weights)
    for i in range(len(result)):
        if problem.weights[i].sum() > 0:
            result[i] = _gate_row(problem, i, _log_shares(scores, problem, i))
    return result


def reg_gradient_scores(embeddings, labels, ref_embeddings=None, ref_labels=None, *, prototypes, alpha=0.0, **settings):
    """dL_REG/ds_ij: min(sigma-w, 0)/(tau N+) for positives, sigma/(tau N+) for negatives, 0 in rows that are no anchor.

    Rows: the batch, then the prototypes. Columns: the batch (or the references), then the prototypes.
    """
    settings = {"prototypes": prototypes, "alpha": alpha, **settings}
    return _score_gradient(_reg(embeddings, labels, ref_embeddings, ref_labels, **settings))


def softjac(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """Soft-Jaccard: W_ij = e^{J_ij/t} / sum_{k != i} e^{J_ik/t}, t = 0.04, N = number of labelled anchors."""
    return _value(_softjac(embeddings, labels, ref_embeddings, ref_labels, **settings))


def gma(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """GMA-SCL: W_ij = e^{g_ij/t} / sum_{k != i} e^{g_ik/t}, t = 0.1, N = number of labelled anchors.

    Settings: train_labels (default: the batch's labels) or idf and npmi; label_embeddings; lam (1, or 1/2 with them).
    """
    return _value(_gma(embeddings, labels, ref_embeddings, ref_labels, **settings))


def multisupcon(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """MultiSupCon: P(i) = {j != i: J_ij > c}, W_ij = J_ij 1[j in P(i)]/|P(i)|, c = threshold = 0.3, N = N+."""
    return _value(_multisupcon(embeddings, labels, ref_embeddings, ref_labels, **settings))


def sincere(embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """SINCERE: (1/N+) sum_i sum_p W_ip [-s_ip/tau + log(e^{s_ip/tau} + sum over non-positives e^{s_in/tau})].

    W_ip = 1/|P(i)| over pairs sharing a label; `reg_weights=True, prototypes=..., alpha=...`: REG's w. P(i) = {W > 0}.
    """
    return _value(_sincere(embeddings, labels, ref_embeddings, ref_labels, **settings))


def weights(name, embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """(W, N) of the loss called `name`; ABALONE's W has rows of mass |y_i| (before its factor 1/|y_i|)."""
    problem = PROBLEMS[name](embeddings, labels, ref_embeddings, ref_labels, **settings)
    return problem.weights, problem.divisor


def gradient(name, embeddings, labels, ref_embeddings=None, ref_labels=None, **settings):
    """Analytic gradient of a contrastive loss: dict of 'scores' (dL/ds), 'embeddings', 'references', 'prototypes'.

    'references' is None without given references, 'prototypes' for a loss without any; 'scores' is shaped as `weights`.
    """
    problem = PROBLEMS[name](embeddings, labels, ref_embeddings, ref_labels, **settings)
    return chain(problem, _score_gradient(problem))


# ----------------------------------------------------------------------------------------------------- losses on logits
def _known(logits, labels):
    """float64 logits, labels with unknown as 0, and where they are known."""
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(labels).astype(np.float64)
    known = ~np.isnan(y)
    return x, np.where(known, y, 0.0), known


def _reduce(entries, known, reduction):
    """Mean over known entries, their sum, or the sum over the number of rows with a known entry (batchmean)."""
    total = entries[known].sum()
    count = {"mean": known.sum(), "sum": 1, "batchmean": known.any(axis=1).sum()}[reduction]
    return float(total / count) if count else 0.0


def bce(logits, labels, pos_weight=None, reduction="mean"):
    """BCE: -[pos_weight y log p + (1-y) log(1-p)]."""
    x, y, known = _known(logits, labels)
    c = 1.0 if pos_weight is None else np.asarray(pos_weight, dtype=np.float64)
    return _reduce(-(c * y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)), known, reduction)


def focal(logits, labels, gamma=2.0, alpha=None, pos_weight=None, reduction="mean"):
    """Focal: -alpha_t (1-p_t)^gamma log p_t, alpha_t = alpha or 1-alpha (None: 1); pos_weight on positives."""
    x, y, known = _known(logits, labels)
    c = 1.0 if pos_weight is None else np.asarray(pos_weight, dtype=np.float64)
    a_pos, a_neg = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    positive = -a_pos * c * sigmoid(-x) ** gamma * log_sigmoid(x)
    negative = -a_neg * sigmoid(x) ** gamma * log_sigmoid(-x)
    return _reduce(y * positive + (1 - y) * negative, known, reduction)


def asl(logits, labels, gamma_neg=4.0, gamma_pos=1.0, margin=0.05, pos_weight=None, reduction="mean"):
    """ASL: -[y (1-p)^gamma+ log p + (1-y) p_m^gamma- log(1-p_m)], p_m = max(p-m, 0)."""
    x, y, known = _known(logits, labels)
    c = 1.0 if pos_weight is None else np.asarray(pos_weight, dtype=np.float64)
    p_m = np.maximum(sigmoid(x) - margin, 0.0)
    log_rest = log_sigmoid(-x) if margin == 0 else np.log(np.minimum(sigmoid(-x) + margin, 1.0))  # log(1 - p_m)
    positive = -c * sigmoid(-x) ** gamma_pos * log_sigmoid(x)
    negative = -(p_m ** gamma_neg) * log_rest
    return _reduce(y * positive + (1 - y) * negative, known, reduction)


def asl1(logits, labels, gamma_neg=1.0, gamma_pos=0.0, margin=0.0, pos_weight=None, reduction="mean"):
    """ASL with the settings of the study's baseline."""
    return asl(logits, labels, gamma_neg, gamma_pos, margin, pos_weight, reduction)


def zlpr(logits, labels):
    """ZLPR: mean_i [log(1 + sum_{l not in y_i} e^{x_il}) + log(1 + sum_{l in y_i} e^{-x_il})], unless all unknown."""
    x, y, known = _known(logits, labels)
    rows = []
    for i in np.flatnonzero(known.any(axis=1)):
        negative, positive = x[i, known[i] & (y[i] == 0)], -x[i, known[i] & (y[i] == 1)]
        rows.append(log_sum_exp(np.append(negative, 0.0)) + log_sum_exp(np.append(positive, 0.0)))
    return float(np.mean(rows)) if rows else 0.0


def _two_way_set(scores, positive, negative, t_p, t_n):
    """softplus(T_n log sum_neg e^{x/T_n} + T_p log sum_pos e^{-x/T_p}); without negatives 0."""
    return softplus(t_n * log_sum_exp(scores[negative] / t_n) + t_p * log_sum_exp(-scores[positive] / t_p))


def twoway(logits, labels, t_p=4.0, t_n=1.0):
    """Two-way: mean over classes that have a positive + mean over samples that have one; no positive at all: 0."""
    x, y, known = _known(logits, labels)
    positive, negative = known & (y == 1), known & (y == 0)
    if not positive.any():
        return 0.0
    classes = [_two_way_set(x[:, l], positive[:, l], negative[:, l], t_p, t_n)
               for l in range(x.shape[1]) if positive[:, l].any()]
    samples = [_two_way_set(x[i], positive[i], negative[i], t_p, t_n) for i in range(len(x)) if positive[i].any()]
    return float(np.mean(classes) + np.mean(samples))


def db(logits, labels, class_counts, n_train, map_alpha=0.1, map_beta=10.0, map_mu=0.2, init_bias=0.05, neg_scale=2.0,
       gamma=2.0, reduction="mean"):
    """Distribution-balanced: mean[(1-p_t)^gamma r^ (y log(1+e^-z) + (1-y)/kappa log(1+e^{kappa z}))], z = x + v.

    r_il = (1/n_l)/sum_k y_ik/n_k, r^ = alpha + sigmoid(beta (r - mu)), v_l = -kappa' log(N/n_l - 1), p_t from z.
    An empty label set has r = 1/0 = infinity, hence r^ = alpha + 1.
    """
    x, y, known = _known(logits, labels)
    n = np.clip(np.asarray(class_counts, dtype=np.float64), 1.0, n_train - 1.0)
    repeated = (y / n).sum(axis=1, keepdims=True)
    r = np.divide(1.0 / n, repeated, out=np.full(x.shape, INF), where=repeated > 0)
    r_hat = map_alpha + sigmoid(map_beta * (r - map_mu))
    z = x - init_bias * np.log(n_train / n - 1.0)
    positive = sigmoid(-z) ** gamma * softplus(-z)
    negative = sigmoid(z) ** gamma * softplus(neg_scale * z) / neg_scale
    return _reduce(r_hat * (y * positive + (1 - y) * negative), known, reduction)


def hill(logits, labels, margin=1.0, gamma=2.0, lam=1.5, reduction="mean"):
    """Hill: -y (1-p_m)^gamma log p_m + (1-y) (lambda-p) p^2, p_m = sigmoid(x - m)."""
    x, y, known = _known(logits, labels)
    p = sigmoid(x)
    positive = -(sigmoid(margin - x) ** gamma) * log_sigmoid(x - margin)
    return _reduce(y * positive + (1 - y) * (lam - p) * p ** 2, known, reduction)


def splc(logits, labels, margin=1.0, gamma=2.0, threshold=0.6, epoch=0, change_epoch=1, reduction="mean"):
    """SPLC: positives -(1-p_m)^gamma log p_m, negatives -p^gamma log(1-p); from `change_epoch` (counted from 0) on a
    negative with p > 0.6 is a positive. The value only: whether gradient flows through p^gamma is left open."""
    x, y, known = _known(logits, labels)
    if epoch >= change_epoch:
        y = np.where((y == 0) & (sigmoid(x) > threshold), 1.0, y)
    positive = -(sigmoid(margin - x) ** gamma) * log_sigmoid(x - margin)
    negative = -(sigmoid(x) ** gamma) * log_sigmoid(-x)
    return _reduce(y * positive + (1 - y) * negative, known, reduction)
