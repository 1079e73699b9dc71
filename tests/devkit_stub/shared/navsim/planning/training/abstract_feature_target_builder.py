from abc import abstractmethod


class AbstractFeatureBuilder:
    @abstractmethod
    def get_unique_name(self): ...

    @abstractmethod
    def compute_features(self, agent_input): ...


class AbstractTargetBuilder:
    @abstractmethod
    def get_unique_name(self): ...

    @abstractmethod
    def compute_targets(self, scene): ...
