"""How others look in and speak: the live page, a server of policies, a ROS 2 node, set-points"""
