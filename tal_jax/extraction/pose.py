"""Features of body pose: joints relative to the body's centre, axes and size.

Interface (the content follows)::

    body = choose_body(keypoints, center=(), forward=(), size=(), up="")   # roles of joints, once
    signals, notes = body_signals(keypoints, body, fps)                    # [n, S] at fps
    features = describe_pose(windows, fps)          # [N, window, S] -> [N, D] float32
"""
