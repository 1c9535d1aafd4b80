"""A scene: pictures, the cameras that took them, and the rays through their pixels."""
